"""What the calibration text needs of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes.computing import ON_CPU
from runtimes.pytorch import TorchRuntime, open_reference

MARK = "QUESTION"  # stands for the user's words
# What most pretraining texts are separated by; else a document begins with the first token.
SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a model.

    `opening` is its chat template up to the user's words, () without one; `separator` what
    documents are sampled from; `size` counts the model's rows, `context` its positions.
    """

    size: int
    context: int
    opening: tuple[int, ...]
    separator: int
    tokenize: Callable[[str], list[int]]
    detokenize: Callable[[Sequence[int]], str]


def open_vocabulary(checkpoint: Path, threads: int) -> Vocabulary:
    """Of a checkpoint's folder; no weights stay in memory.

    Raises:
        InputError: transformers cannot load it, or its chat template cannot be rendered.
    """
    runtime = open_reference(checkpoint, threads, ON_CPU)
    runtime.rest()
    separator = runtime.tokenize(SEPARATOR)
    return Vocabulary(
        runtime.vocabulary,
        runtime.context,
        _opening(runtime),
        separator[0] if len(separator) == 1 else runtime.first_token,
        runtime.tokenize,
        runtime.detokenize,
    )


def _opening(runtime: TorchRuntime) -> tuple[int, ...]:
    if not runtime.has_chat_template:
        return ()
    turn = [{"role": "user", "content": MARK}]
    before = runtime.render_chat(turn, add_generation_prompt=False).partition(MARK)[0]
    return tuple(runtime.tokenize(before))
