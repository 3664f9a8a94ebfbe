"""A file of others with more or fewer tokens than the original: compared on those of both.

Rows that fill up to a round number, or tokens that were added, come after the others, which keep
their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeproof.artifact import Vocabulary
from runtimes.protocol import (
    BatchRuntime,
    ManyRuntime,
    OwnTokenizerRuntime,
    Runtime,
    TextRuntime,
    WrappingRuntime,
)

TABLES = ("embed_tokens", "lm_head")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class CommonRows(Mapping[str, np.ndarray]):
    """A file's weights, or the original's, of the embedding and the head the rows of common tokens.

    With the `original`'s weights these two get the rows that the file has not from them.
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        vocabulary: Vocabulary,
        original: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._weights, self._vocabulary = weights, vocabulary
        # Copies: the original's may be overwritten while these are looked up.
        self._lacking = {} if original is None else _after(original, vocabulary)

    def __getitem__(self, name: str) -> np.ndarray:
        values = self._weights[name]
        if not _is_table(name) or len(values) not in self._sizes:
            return values
        common = values[: self._vocabulary.common]
        if name == HEAD and name not in self._lacking:  # tied, and stored apart by others
            name = EMBEDDING
        lacking = self._lacking.get(name)
        return common if lacking is None else np.concatenate([common, lacking])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @property
    def _sizes(self) -> tuple[int, int]:
        return self._vocabulary.own, self._vocabulary.original


def _is_table(name: str) -> bool:
    return any(part in TABLES for part in name.split("."))


def _after(original: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """The rows of the original's tables that come after the common ones, where there are any."""
    if vocabulary.own >= vocabulary.original:
        return {}
    return {name: original[name][vocabulary.own :].copy() for name in original if _is_table(name)}


def on_common_tokens(runtime: Runtime, common: int) -> Runtime:
    """A runtime whose logits are those of the first tokens; it can do what the given one can.

    But for going on from a beginning, and for what only tasks ask for. It is a `WiderRuntime`.
    """
    parts = [part for protocol, part in PARTS.items() if isinstance(runtime, protocol)]
    made: Runtime = type("CommonTokens", (*parts, _Common), {})(runtime, common)
    return made


class _Common:
    """What every `Runtime` has."""

    def __init__(self, inner: Any, common: int) -> None:
        self._inner, self._common = inner, common
        self.name, self.version, self.device = inner.name, inner.version, inner.device
        self.context = inner.context
        self._positions = self._elsewhere = 0

    @property
    def beyond(self) -> str | None:
        if not self._elsewhere:
            return None
        return (
            f"at {self._elsewhere} of {self._positions} positions its likeliest token is one that"
            " the original has not"
        )

    def tokenize(self, text: str) -> list[int]:
        return list(self._inner.tokenize(text))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self._restricted(self._inner.logits(ids))

    def logit_blocks(self, ids: Sequence[int], first: int = 0) -> Iterator[np.ndarray]:
        for block in self._inner.logit_blocks(ids, first):
            rows = self._restricted(block)
            further = block[:, self._common :].max(-1) > rows.max(-1)
            self._positions += len(block)
            self._elsewhere += int(further.sum())
            yield rows

    def start(self, ids: Sequence[int]) -> np.ndarray:
        return self._restricted(self._inner.start(ids))

    def step(self, token: int) -> np.ndarray:
        return self._restricted(self._inner.step(token))

    def close(self) -> None:
        self._inner.close()

    def _restricted(self, logits: np.ndarray) -> np.ndarray:
        return logits[..., : self._common]


class _Wrapping(_Common):
    def tokenize_whole(self, text: str) -> list[int]:
        return list(self._inner.tokenize_whole(text))


class _Text(_Common):
    @property
    def stop_tokens(self) -> frozenset[int]:
        return frozenset(self._inner.stop_tokens)

    def detokenize(self, ids: Sequence[int]) -> str:
        return str(self._inner.detokenize(ids))


class _Batch(_Common):
    def padded_logits(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [self._restricted(rows) for rows in self._inner.padded_logits(sequences)]


class _Many(_Common):
    def start_many(self, prompts: Sequence[Sequence[int]], room: int) -> np.ndarray:
        return self._restricted(self._inner.start_many(prompts, room))

    def step_many(self, tokens: Sequence[int]) -> np.ndarray:
        return self._restricted(self._inner.step_many(tokens))


class _OwnTokenizer(_Common):
    def splits_otherwise(self, text: str) -> bool:
        return bool(self._inner.splits_otherwise(text))


PARTS: dict[Any, type[_Common]] = {
    WrappingRuntime: _Wrapping,
    TextRuntime: _Text,
    BatchRuntime: _Batch,
    ManyRuntime: _Many,
    OwnTokenizerRuntime: _OwnTokenizer,
}
