"""The reference, captured once: final hidden states of unpatched PyTorch fp32 on the suite.

Logits are recomputed where they are needed as hidden · headᵀ, exactly as the model does; hidden
states of the 135M are 85 times smaller than logits. The capture is cached by the hash of
everything it depends on and shared by all artifacts. It is stored in groups of documents, so that
an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeproof.artifact import Vocabulary
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder, keep
from edgeproof.files.hashing import OutputFile
from edgeproof.files.once import once
from runtimes.parity.decoding import decode, decode_all, first_difference, greedy
from runtimes.parity.long_range import Probe
from runtimes.parity.looks import Part, parts
from runtimes.parity.original_code import original_code
from runtimes.parity.repeats import positions, reached
from runtimes.parity.suite import REPLY_TOKENS, Document, Prompt, Suite, prompt_ids
from runtimes.peaks import Peak, Place, largest

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

CAPTURES = "reference"  # of the cache
# Documents captured and stored together.
GROUP = 16
FEWEST_DOCUMENTS = 3
GREEDY_PROMPTS = 24
SAMPLED_PROMPTS = 32


@dataclass(frozen=True)
class Reference:
    """Documents with their hidden states (float32 [T, hidden] each) and the head [V, hidden].

    `peaks` are the largest values over all positions, of each place that may overflow float16;
    `greedy_chats` and `sampled_chats` are to be answered by at most `reply_tokens` tokens each.
    `probe` is the long text, where a run has one. `whole_text` asks for all documents of every
    export, also where its first ones tell enough. `beyond` are the head's rows of what an export
    has not: [.., hidden], None of one that has all.
    """

    documents: tuple[Document, ...]
    hidden: tuple[np.ndarray, ...]
    head: np.ndarray
    peaks: tuple[Peak, ...]
    greedy_chats: tuple[Document, ...] = ()
    sampled_chats: tuple[Document, ...] = ()
    reply_tokens: int = REPLY_TOKENS
    probe: Probe | None = None
    whole_text: bool = True
    beyond: np.ndarray | None = None

    def on_common_tokens(self, vocabulary: Vocabulary) -> Reference:
        """The same of a file that may have fewer tokens: the logits are of those of both.

        Raises:
            InputError: a text has another token.
        """
        common = vocabulary.common
        if common == len(self.head):
            return self
        for document in self.documents:
            if max(document.ids) >= common:
                raise InputError(
                    f"the original's reply to {document.id} has the token {max(document.ids)}, for"
                    f" which the file, of {common} tokens, has no row"
                )
        return replace(self, head=self.head[:common], beyond=self.head[common:])

    @property
    def positions(self) -> int:
        """Number of positions that count: those of a beginning that documents share do so once."""
        return positions(self.documents)

    @property
    def tokens(self) -> int:
        """Number of tokens in all documents: what a runtime reads."""
        return sum(len(document.ids) for document in self.documents)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Where an export's text is looked at."""
        return parts(reached(self.documents), whole_text=self.whole_text)

    def part(self, wanted: int) -> Reference:
        """The first documents that have `wanted` positions together, or all there are.

        At least `FEWEST_DOCUMENTS` of them, since one alone would have no interval. As much fewer
        chats are answered, but one greedily.
        """
        count = int(np.searchsorted(reached(self.documents), wanted)) + 1
        count = max(count, FEWEST_DOCUMENTS)
        share = min(1.0, count / len(self.documents))
        return replace(
            self,
            documents=self.documents[:count],
            hidden=self.hidden[:count],
            greedy_chats=self.greedy_chats[: max(1, int(share * GREEDY_PROMPTS))],
            sampled_chats=self.sampled_chats[: int(share * SAMPLED_PROMPTS)],
        )


@dataclass(frozen=True)
class Wanted:
    """A prompt, and at most how many tokens of a reply are to follow it."""

    prompt: Prompt
    reply_tokens: int


@dataclass(frozen=True)
class CapturedGroup:
    """A group of documents with their hidden states, and the peaks of all run until then."""

    documents: tuple[Document, ...]
    hidden: tuple[np.ndarray, ...]
    peaks: tuple[Peak, ...]


def load_reference(
    runtime: TorchRuntime, suite: Suite, inputs: tuple[OutputFile, ...], advance: Callable[[], None]
) -> Reference:
    """The cached capture for these checkpoint files, completed; `advance` once per document."""
    longest = min(suite.reply_tokens, runtime.context // 2)
    groups, wanted = [], _wanted(suite.prompts, longest)
    for number, path in enumerate(capture_files(runtime, suite, inputs)):
        group = _group(runtime, wanted[number * GROUP : (number + 1) * GROUP], path)
        groups.append(group)
        for _ in group.documents:
            advance()
    documents = tuple(document for group in groups for document in group.documents)
    answered = [pair for pair in zip(documents, wanted, strict=True) if pair[0].reply]
    greedily = [document for document, asked in answered if asked.reply_tokens == longest]
    roomy = [chat for chat, _ in answered if chat.prompt_length + longest <= runtime.context]
    return Reference(
        documents,
        tuple(rows for group in groups for rows in group.hidden),
        runtime.lasting_head,
        largest(peak for group in groups for peak in group.peaks),
        tuple(greedily[:GREEDY_PROMPTS]),
        tuple(roomy[:SAMPLED_PROMPTS]),
        longest,
    )


def capture_files(
    runtime: TorchRuntime, suite: Suite, inputs: tuple[OutputFile, ...]
) -> list[Path]:
    """Where the capture lies in the cache: a file for each group of prompts."""
    folder = cache_folder() / CAPTURES / _key(runtime, suite, inputs)
    return [folder / f"{first:05}.npz" for first in range(0, len(suite.prompts), GROUP)]


def _key(runtime: TorchRuntime, suite: Suite, inputs: tuple[OutputFile, ...]) -> str:
    recipe = {
        "code": original_code(),
        "reply_tokens": suite.reply_tokens,
        "group": GROUP,
        "suite": suite.digest,
        "runtime": runtime.version,
        "inputs": [[item.path, item.sha256] for item in inputs],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _wanted(prompts: Sequence[Prompt], longest: int) -> list[Wanted]:
    """The chats that runtimes answer greedily may have the longest replies."""
    wanted, chats = [], 0
    for prompt in prompts:
        chats += bool(prompt.messages)
        wanted.append(
            Wanted(prompt, longest if chats <= GREEDY_PROMPTS else min(longest, REPLY_TOKENS))
        )
    return wanted


def _group(runtime: TorchRuntime, group: Sequence[Wanted], path: Path) -> CapturedGroup:
    """The capture of some prompts that is kept at `path`."""

    def make() -> CapturedGroup:
        captured = _capture(runtime, group)
        _write(path, captured)
        return captured

    return once(path, lambda: _read(path), make)


def _capture(runtime: TorchRuntime, group: Sequence[Wanted]) -> CapturedGroup:
    render = runtime.render_chat if runtime.has_chat_template else None
    prompts = [
        prompt_ids(item.prompt, runtime.tokenize, render, runtime.context, item.reply_tokens)
        for item in group
    ]
    tasks = {
        index: greedy(ids, group[index].reply_tokens)
        for index, (ids, wants_reply) in enumerate(prompts)
        if wants_reply
    }
    found = decode_all(runtime, [*tasks.values()], runtime.stop_tokens, together=True)
    replies = {index: item.reply for index, item in zip(tasks, found, strict=True)}
    texts = [(*ids, *replies.get(index, ())) for index, (ids, _) in enumerate(prompts)]
    hidden = runtime.hidden_of(texts)
    for index, task in tasks.items():
        ids = prompts[index][0]
        if not confirmed(hidden[index][len(ids) - 1 :] @ runtime.head.T, replies[index]):
            texts[index] = (*ids, *decode(runtime, task, runtime.stop_tokens).reply)
            hidden[index] = runtime.hidden(texts[index])
    documents = [
        Document(item.prompt.id, item.prompt.kind, text, len(ids) if index in tasks else 0)
        for index, (item, text, (ids, _)) in enumerate(zip(group, texts, prompts, strict=True))
    ]
    return CapturedGroup(tuple(documents), tuple(hidden), runtime.peaks)


def confirmed(logits: np.ndarray, reply: Sequence[int]) -> bool:
    """Whether unbatched logits [≥ len(reply), V] choose every token of a greedy reply, too.

    A batch changes the summation order, so that a near-tie may fall the other way.
    """
    return first_difference(logits[: len(reply)].argmax(-1).tolist(), reply) == len(reply)


def _write(path: Path, captured: CapturedGroup) -> None:
    meta = {
        "peaks": [[peak.place.value, peak.layer, peak.value] for peak in captured.peaks],
        "documents": [[d.id, d.kind, list(d.ids), d.prompt_length] for d in captured.documents],
    }
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(meta)), hidden=np.concatenate(captured.hidden))
    keep(path, buffer.getvalue())


def _read(path: Path) -> CapturedGroup | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            meta = json.loads(str(stored["meta"]))
            rows = stored["hidden"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # a damaged file is captured again
    documents = tuple(
        Document(name, kind, tuple(ids), length) for name, kind, ids, length in meta["documents"]
    )
    peaks = tuple(Peak(Place(place), layer, value) for place, layer, value in meta["peaks"])
    splits = np.cumsum([len(document.ids) for document in documents])[:-1]
    return CapturedGroup(documents, tuple(np.split(rows, splits)), peaks)
