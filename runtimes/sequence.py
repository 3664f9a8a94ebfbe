"""One sequence in a KV cache: what every adapter does alike, written once.

Invariant: after every call that returns, the adapter's cache holds exactly `length` tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

EMPTY = "an empty prompt has no logits; give at least one token"


def left_padded(sequences: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask of a batch, int64 [B, longest] each.

    Raises:
        ValueError: an empty sequence.
    """
    if not all(len(ids) for ids in sequences):
        raise ValueError(EMPTY)
    width = max(len(ids) for ids in sequences)
    ids = np.full((len(sequences), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(sequences):
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
    return ids, mask


class SequenceRuntime(ABC):
    """`logits`, `start` and `step` on top of two primitives, `_clear` and `_extend`.

    `vocabulary` is V; `context` is the greatest sequence length the model was made for; `chunk` is
    how many tokens are given to the runtime in one call. Longer prompts go through the KV cache in
    pieces of this size, which bounds the attention scores and the runtime's own logits buffer.
    """

    chunk: int = 512
    vocabulary: int
    context: int
    length: int = 0

    @abstractmethod
    def _clear(self) -> None:
        """Empty the KV cache."""

    def _cut(self, length: int) -> bool:
        """Have the KV cache forget all but the first `length` tokens, at least one; or not."""
        return False

    @abstractmethod
    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        """Append 1 to `chunk` tokens, int64 [n]: float32 logits [n, V]; [1, V] if not `every`.

        They may be the runtime's own memory, which its next call fills again.
        """

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits at every position of one new sequence: float32 [T, V].

        Raises:
            ValueError: no tokens, an id outside the vocabulary, or more tokens than `context`.
        """
        result = np.empty((len(ids), self.vocabulary), np.float32)
        end = 0
        for block in self.logit_blocks(ids):
            result[end : end + len(block)] = block
            end += len(block)
        return result

    def logit_blocks(
        self, ids: Sequence[int], first: int = 0, kept: int = 0
    ) -> Iterator[np.ndarray]:
        """The rows of `logits`, float32 [1..chunk, V] at a time: 8192 of them need 1.6 GB.

        Those from position `first` on; before it, only one row of a chunk is computed. The `kept`
        first tokens are in the KV cache (`rewind`): they are not computed again and have no rows.
        A block is valid until the next one is asked for.

        Raises:
            ValueError: as for `logits`, when the first block is asked for.
        """
        for chunk in self._begin(ids, kept):
            before = min(max(0, first - self.length), len(chunk))
            if before:
                self._advance(chunk[:before], every=False)
            if before < len(chunk):
                yield self._advance(chunk[before:], every=True)

    def start(self, ids: Sequence[int], kept: int = 0) -> np.ndarray:
        """Begin a new sequence with a prompt: logits after its last token, float32 [V].

        `kept` as for `logit_blocks`.

        Raises:
            ValueError: as for `logits`.
        """
        *head, tail = self._begin(ids, kept)
        for chunk in head:
            self._advance(chunk, every=False)
        return self._last(tail)

    def step(self, token: int) -> np.ndarray:
        """Append one token to the sequence: logits after it, float32 [V].

        Raises:
            ValueError: no sequence was started, the id is unknown, or the context is full.
        """
        if self.length == 0:
            raise ValueError("step() before start(): there is no sequence to continue")
        return self._last(self._checked([token]))

    def rewind(self, length: int) -> int:
        """Forget what the sequence has after its first `length` tokens: how many are left.

        None are where the KV cache cannot be cut there, or holds no sequence.
        """
        length = min(length, self.length)
        cut = length == self.length or (length > 0 and self._cut(length))
        self.length = length if cut else 0
        return self.length

    def _begin(self, ids: Sequence[int], kept: int = 0) -> list[np.ndarray]:
        """Empty the cache but for `kept` tokens; the others in chunks, int64 [1..chunk]."""
        if len(ids) == 0:
            raise ValueError(EMPTY)
        if kept and not kept == self.length < len(ids):
            raise ValueError(f"{kept} tokens of {len(ids)} kept, the KV cache has {self.length}")
        if not kept:
            self._clear()
            self.length = 0
        tokens = self._checked(ids[kept:])
        return [tokens[start : start + self.chunk] for start in range(0, len(tokens), self.chunk)]

    def _advance(self, ids: np.ndarray, every: bool) -> np.ndarray:
        result = self._extend(ids, every)
        self.length += len(ids)
        return result

    def _last(self, ids: np.ndarray) -> np.ndarray:
        last: np.ndarray = self._advance(ids, every=False)[-1].copy()
        return last

    def _checked(self, ids: Sequence[int]) -> np.ndarray:
        tokens = np.asarray(ids, np.int64)  # [n]
        if tokens.min() < 0 or tokens.max() >= self.vocabulary:
            raise ValueError(f"token ids must be in 0..{self.vocabulary - 1}, got {list(ids)[:8]}…")
        if self.length + len(tokens) > self.context:
            raise ValueError(
                f"a sequence of {self.length + len(tokens)} tokens;"
                f" the model was made for at most {self.context}"
            )
        return tokens
