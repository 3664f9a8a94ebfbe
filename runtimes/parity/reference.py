"""The reference, captured once: final hidden states of unpatched PyTorch fp32 on the suite.

Logits are recomputed where they are needed as hidden · headᵀ, exactly as the model does; hidden
states of the 135M are 85 times smaller than logits. The capture is cached by the hash of
everything it depends on and shared by all artifacts.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.artifact.atomic import write_atomic
from export.artifact.cache import cache_folder
from export.artifact.manifest import OutputFile
from runtimes.parity.decoding import first_difference
from runtimes.parity.suite import Document, load_suite, prompt_ids, suite_text

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

CAPTURE_VERSION = 3
REPLY_TOKENS = 48
GREEDY_PROMPTS = 6


@dataclass(frozen=True)
class Reference:
    """Documents with their hidden states (float32 [T, hidden] each) and the head [V, hidden].

    `peak_activation` is the largest |value| of the residual stream over all positions;
    `greedy_prompts` is how many chats are to be answered step by step.
    """

    documents: tuple[Document, ...]
    hidden: tuple[np.ndarray, ...]
    head: np.ndarray
    peak_activation: float
    greedy_prompts: int = GREEDY_PROMPTS

    @property
    def positions(self) -> int:
        """Number of positions in all documents."""
        return sum(len(document.ids) for document in self.documents)

    def part(self, positions: int) -> Reference:
        """Every n-th document, with n so that at least `positions` remain, or all there are."""
        for step in range(max(1, self.positions // positions), 0, -1):
            chosen = slice(step // 2, None, step)
            part = replace(
                self,
                documents=self.documents[chosen],
                hidden=self.hidden[chosen],
                greedy_prompts=max(1, self.greedy_prompts // step),
            )
            if part.positions >= positions:
                return part
        return self

    def logits(self, index: int) -> np.ndarray:
        """Logits of one document: float32 [T, V]."""
        return np.asarray(self.hidden[index] @ self.head.T)


def load_reference(
    runtime: TorchRuntime, inputs: tuple[OutputFile, ...], advance: Callable[[], None]
) -> Reference:
    """The cached capture for these checkpoint files, or a new one; `advance` once per document."""
    path = cache_folder() / "reference" / f"{_key(runtime, inputs)}.npz"
    documents, hidden, peak = _read(path) or _capture(runtime, path, advance)
    return Reference(documents, hidden, runtime.head, peak)


def _key(runtime: TorchRuntime, inputs: tuple[OutputFile, ...]) -> str:
    recipe = {
        "capture": CAPTURE_VERSION,
        "reply_tokens": REPLY_TOKENS,
        "suite": suite_text(),
        "runtime": runtime.version,
        "inputs": [[item.path, item.sha256] for item in inputs],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


Captured = tuple[tuple[Document, ...], tuple[np.ndarray, ...], float]


def _capture(runtime: TorchRuntime, path: Path, advance: Callable[[], None]) -> Captured:
    render = runtime.render_chat if runtime.has_chat_template else None
    suite = load_suite()
    limit = runtime.context - REPLY_TOKENS
    prompts = [prompt_ids(prompt, runtime.tokenize, render, limit) for prompt in suite]
    chats = [index for index, (_, wants_reply) in enumerate(prompts) if wants_reply]
    replies: dict[int, Sequence[int]] = dict.fromkeys(range(len(prompts)), ())
    if chats:
        texts = [prompts[index][0] for index in chats]
        replies |= zip(chats, runtime.greedy_replies(texts, REPLY_TOKENS), strict=True)
    documents, hidden = [], []
    for index, (prompt, (ids, wants_reply)) in enumerate(zip(suite, prompts, strict=True)):
        states = runtime.hidden((*ids, *replies[index]))
        count = confirmed(states[len(ids) - 1 :] @ runtime.head.T, replies[index])
        length = len(ids) if wants_reply else 0
        documents.append(Document(prompt.id, prompt.kind, (*ids, *replies[index][:count]), length))
        hidden.append(states[: len(ids) + count])
        advance()
    captured = tuple(documents), tuple(hidden), runtime.peak_activation
    _write(path, captured)
    return captured


def confirmed(logits: np.ndarray, reply: Sequence[int]) -> int:
    """How many tokens of a batched greedy reply the unbatched logits [≥ len(reply), V] choose too.

    Batching changes the summation order, so a near-tie may fall the other way.
    """
    return first_difference(logits[: len(reply)].argmax(-1).tolist(), reply)


def _write(path: Path, captured: Captured) -> None:
    documents, hidden, peak = captured
    meta = {
        "peak": peak,
        "documents": [[d.id, d.kind, list(d.ids), d.prompt_length] for d in documents],
    }
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(meta)), hidden=np.concatenate(hidden))
    write_atomic(path, buffer.getvalue())


def _read(path: Path) -> Captured | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        rows = stored["hidden"]
    documents = tuple(
        Document(name, kind, tuple(ids), length) for name, kind, ids, length in meta["documents"]
    )
    splits = np.cumsum([len(document.ids) for document in documents])[:-1]
    return documents, tuple(np.split(rows, splits)), float(meta["peak"])
