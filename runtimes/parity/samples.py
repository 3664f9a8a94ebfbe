"""The reference's sampled replies: decoded by the shared sampler, once, and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.files.cache import cache_folder, keep
from edgeproof.files.hashing import OutputFile
from edgeproof.files.once import once
from edgeproof.json_text import parse_json
from runtimes.parity.decoding import SEED, TOGETHER, decode, decode_all, draw, sampled, uniforms
from runtimes.parity.divergence import TEMPERATURE, TOP_P
from runtimes.parity.original_code import original_code
from runtimes.parity.prefill import logits_from

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

SAMPLES = "samples"  # of the cache

Ids = tuple[int, ...]


def reference_samples(
    runtime: TorchRuntime,
    inputs: tuple[OutputFile, ...],
    prompts: Sequence[Ids],
    count: int,
    wanted: int,
) -> list[Ids]:
    """A sampled reply of at most `count` tokens to each of the first `wanted` prompts.

    The cache is keyed by all that a reply depends on; it has replies by groups of prompts, which do
    not depend on how many are wanted.
    """
    replies: list[Ids] = []
    for first in range(0, wanted, TOGETHER):
        replies += _sample(runtime, inputs, prompts[first : first + TOGETHER], count)
    return replies[:wanted]


def sample_files(
    runtime: TorchRuntime, inputs: tuple[OutputFile, ...], prompts: Sequence[Ids], count: int
) -> list[Path]:
    """Where the replies to all prompts lie in the cache: a file for each group of them."""
    return [
        _file(runtime, inputs, prompts[first : first + TOGETHER], count)
        for first in range(0, len(prompts), TOGETHER)
    ]


def _file(
    runtime: TorchRuntime, inputs: tuple[OutputFile, ...], prompts: Sequence[Ids], count: int
) -> Path:
    recipe = {
        "code": original_code(),
        "sampler": [TEMPERATURE, TOP_P, SEED, count],
        "runtime": runtime.version,
        "inputs": [[item.path, item.sha256] for item in inputs],
        "stop": sorted(runtime.stop_tokens),
        "prompts": prompts,
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return cache_folder() / SAMPLES / f"{key}.json"


def _sample(
    runtime: TorchRuntime, inputs: tuple[OutputFile, ...], prompts: Sequence[Ids], count: int
) -> list[Ids]:
    path = _file(runtime, inputs, prompts, count)

    def make() -> list[Ids]:
        tasks = [sampled(prompt, count) for prompt in prompts]
        found = decode_all(runtime, tasks, runtime.stop_tokens, together=True)
        replies = [
            _alone(runtime, prompt, item.reply, count)
            for prompt, item in zip(prompts, found, strict=True)
        ]
        keep(path, json.dumps(replies).encode())
        return replies

    return once(path, lambda: _read(path), make)


def _alone(runtime: TorchRuntime, prompt: Ids, reply: Ids, count: int) -> Ids:
    """The reply as it is without company, which may turn a draw that was nearly a tie."""
    rows = logits_from(runtime, [*prompt, *reply[:-1]], len(prompt) - 1)
    drawn = [draw(row, number) for row, number in zip(rows, uniforms(prompt, count), strict=False)]
    if tuple(drawn) == reply:
        return reply
    return decode(runtime, sampled(prompt, count), runtime.stop_tokens).reply


def _read(path: Path) -> list[Ids] | None:
    try:
        found = parse_json(path.read_text("utf-8"))
        return [tuple(int(token) for token in reply) for reply in found]
    except (OSError, ValueError, TypeError):
        return None  # a missing or damaged file is sampled again
