"""What an adapter does to one tensor, as data, and as arithmetic on blocks of its rows.

Source: https://github.com/huggingface/peft, `tuners/lora/layer.py` (`get_delta_weight`) and
`variants.py` (DoRA's `merge_safe`). Products are added term after term in float32, so that the
bytes depend on no processor. Factors are in memory only while their tensor is streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeproof.errors import InputError
from export.sources.adapters.tensors import Stored

# As float32 256 KiB: terms are added inside the processor's cache.
CHUNK_ELEMENTS = 1 << 16

# Rows of a tensor [n, …] and the number of the first → the same rows, changed.
Apply = Callable[[np.ndarray, int], np.ndarray]
Blocks = Iterable[np.ndarray]


@dataclass(frozen=True)
class Replaced:
    """The tensor is the adapter's own."""

    values: Stored

    def same_as(self, other: Change) -> bool:
        """Whether the other puts the same values there, wherever they lie."""
        if not isinstance(other, Replaced) or self.values.shape != other.values.shape:
            return False
        pairs = zip(self.values.blocks(), other.values.blocks(), strict=True)
        return all(np.array_equal(first, second) for first, second in pairs)


@dataclass(frozen=True)
class Rows:
    """Some rows of a table are the adapter's own: row `indices[i]` is `values[i]`."""

    indices: tuple[int, ...]
    values: Stored

    def opened(self, before: Callable[[], Blocks]) -> Apply:
        """The change, with its values in memory."""
        values, indices = self.values.values(), np.array(self.indices)

        def put(block: np.ndarray, start: int) -> np.ndarray:
            inside = (indices >= start) & (indices < start + len(block))
            result: np.ndarray = block.copy()
            result[indices[inside] - start] = values[inside]
            return result

        return put


@dataclass(frozen=True)
class Added:
    """`scaling` × a vector is added: the bias of LoRA's second matrix."""

    values: Stored
    scaling: float

    def opened(self, before: Callable[[], Blocks]) -> Apply:
        """The change, with its values in memory."""
        added = np.asarray(np.float32(self.scaling) * self.values.values())
        return lambda block, start: np.asarray(block + added[start : start + len(block)])


@dataclass(frozen=True)
class LowRank:
    """`scaling` × b·a is added, and with a magnitude (DoRA) the sum is brought to that length.

    Attributes:
        a: [rank, in], or of an embedding [rank, vocabulary].
        b: [out, rank], or of an embedding [hidden, rank].
        magnitude: the length of each row, or of an embedding of each column.
        table: it is an embedding's: the matrix that is added is the transpose of b·a.
    """

    a: Stored
    b: Stored
    scaling: float
    magnitude: Stored | None = None
    table: bool = False

    def opened(self, before: Callable[[], Blocks]) -> Apply:
        """The change, with its factors in memory; `before` gives the tensor as it was.

        Raises:
            InputError: a row or column of zeros is to get a length.
        """
        a, b = self.a.values(), self.b.values()
        left, right = (np.ascontiguousarray(a.T), b.T.copy()) if self.table else (b, a)
        scaling = np.float32(self.scaling)

        def add(block: np.ndarray, start: int) -> np.ndarray:
            result = np.empty(block.shape, np.float32)
            step = max(1, CHUNK_ELEMENTS // block.shape[1])
            for first in range(0, len(block), step):
                part = left[start + first : start + min(first + step, len(block))]
                result[first : first + step] = _product(part, right)
            result *= scaling
            result += block
            return result

        if self.magnitude is None:
            return add
        wanted = self.magnitude.values().reshape(-1)
        if self.table:
            factors = self._factors(wanted, sum(_squares(b, 0) for b in _each(add, before())))
            return lambda block, start: add(block, start) * factors

        def scale(block: np.ndarray, start: int) -> np.ndarray:
            result = add(block, start)
            factors = self._factors(wanted[start : start + len(block)], _squares(result, 1))
            return np.asarray(result * factors[:, None])

        return scale

    def _factors(self, wanted: np.ndarray, squares: np.ndarray | int) -> np.ndarray:
        lengths = np.sqrt(squares).astype(np.float32)
        if not lengths.all():
            stored = self.magnitude or self.b
            raise InputError(f"{stored.where}: zeros of the base cannot be brought to a length")
        return np.asarray(wanted / lengths)


Step = Rows | Added | LowRank
Change = Replaced | Step


def changed(blocks: Blocks, steps: Sequence[Step]) -> Iterator[np.ndarray]:
    """Blocks of rows, in float32, after one change after the other.

    `blocks` may be read more than once, and gives the tensor from its first row each time.
    """
    if not steps:
        yield from (block.astype(np.float32) for block in blocks)
        return
    *earlier, last = steps
    yield from _each(last.opened(lambda: changed(blocks, earlier)), changed(blocks, earlier))


def _each(apply: Apply, blocks: Blocks) -> Iterator[np.ndarray]:
    start = 0
    for block in blocks:
        yield apply(block, start)
        start += len(block)


def _squares(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.square(values.astype(np.float64)).sum(axis=axis))


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[n, rank] × [rank, m], float32, term after term."""
    total = left[:, :1] * right[:1]
    term = np.empty_like(total)
    for k in range(1, left.shape[1]):
        np.multiply(left[:, k, None], right[k], out=term)
        total += term
    return np.asarray(total)
