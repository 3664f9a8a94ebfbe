"""The blocks that a search is about, brought to one size, and how an approximation is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from export.rounding.cast import FLOAT32, cast
from export.rounding.evidence import Evidence
from export.rounding.grid import Grid
from export.rounding.method import lanes

ZERO, ONE = np.float32(0), np.float32(1)


@dataclass(frozen=True)
class Blocks:
    """n blocks of one weight.

    `values` float32 [block, n] are those of the weight ÷ `units` float32 [n], powers of two that
    bring each block's largest magnitude to 0.5 … 1: an exact division, after which no square
    overflows or vanishes. Scales and minima are in these units too until they are `written`.
    `weights` float32 [block, n] is each value's importance, None where all are alike.
    """

    values: np.ndarray
    units: np.ndarray
    weights: np.ndarray | None
    name: str
    # What is tried overwrites them: arrays that stay in the processor's cache.
    _quotients: np.ndarray = field(init=False)
    _products: np.ndarray = field(init=False)
    _terms: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        for name in ("_quotients", "_products", "_terms"):
            object.__setattr__(self, name, np.empty_like(self.values))

    @classmethod
    def of(cls, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Blocks:
        """The blocks of some rows [m, in], with the importance of their input channels."""
        values = lanes(rows, grid)
        highest = np.maximum(values.max(axis=0), -values.min(axis=0))
        exponents = np.clip(np.frexp(highest)[1], -126, 126)  # both ways a normal number
        values *= np.ldexp(ONE, -exponents)
        weights = _weights(rows, grid, evidence)
        return cls(values, np.ldexp(ONE, exponents), weights, evidence.name)

    def only(self, chosen: np.ndarray) -> Blocks:
        """Some of the blocks, by their numbers."""
        weights = None if self.weights is None else self.weights.take(chosen, axis=1)
        return Blocks(self.values.take(chosen, axis=1), self.units[chosen], weights, self.name)

    def quotients(self, scales: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
        """Values ÷ scales [n] + offsets [n]: [block, n], until this is called again.

        A quotient is 0 where 1 ÷ scale is not finite.
        """
        np.multiply(self.values, inverses(scales), out=self._quotients)
        if offsets is not None:
            np.add(self._quotients, offsets, out=self._quotients)
        return self._quotients

    def fit(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much of the error levels [block, n] save, and their scales of least error: two [n].

        A block without a level other than 0 has scale 0.
        """
        weighted = self.weighted(levels)
        products, squares = self.dot(weighted, self.values), self.dot(weighted, levels)
        scales = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
        return products * scales, scales

    def errors(
        self, levels: np.ndarray, scales: np.ndarray, offsets: np.ndarray | None = None
    ) -> np.ndarray:
        """Weighted squared errors [n] of levels [block, n] × scales [n] + offsets [n]."""
        off = np.multiply(levels, scales, out=self._products)
        if offsets is not None:
            off += offsets
        off -= self.values
        off *= off
        return self.total(off) if self.weights is None else self.dot(off, self.weights)

    def dot(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Sums over each block of products: [block, n] × [block, n] → [n].

        Not `einsum`: whether that rounds its products depends on the processor.
        """
        return self.total(np.multiply(first, second, out=self._terms))

    def total(self, terms: np.ndarray) -> np.ndarray:
        """Sums over each block, term after term: [block, n] → [n]."""
        if terms.shape[1] == 1:  # alone it would be summed in another order than beside others
            return self.total(np.repeat(terms, 2, axis=1))[:1]
        return np.asarray(terms.sum(axis=0))

    def stored(self, numbers: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Numbers [n] as `dtype` holds them; 0 for one that overflows."""
        with np.errstate(over="ignore"):
            kept = (numbers * self.units).astype(dtype).astype(FLOAT32)
        return np.asarray(np.where(np.isfinite(kept), kept, ZERO) / self.units)

    def stored_scales(self, scales: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """As `stored`, but a scale that would vanish becomes the smallest one."""
        kept = self.stored(scales, dtype)
        smallest = np.float32(ml_dtypes.finfo(dtype).smallest_subnormal) / self.units
        vanished = (kept == 0) & (scales != 0)
        return np.asarray(np.where(vanished, np.copysign(smallest, scales), kept))

    def written(self, numbers: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Scales or minima [n] in the weight's own units, as `dtype`.

        Raises:
            InputError: one overflows.
        """
        with np.errstate(over="ignore"):
            own = numbers * self.units + ZERO  # never -0
        return cast(own, dtype, f"{self.name}, scale or minimum of a block")

    def weighted(self, levels: np.ndarray) -> np.ndarray:
        """Levels × weights, until something else is measured."""
        if self.weights is None:
            return levels
        np.multiply(levels, self.weights, out=self._products)
        return self._products


class Leader:
    """Of all that was offered, for each block what scored most: `numbers`, float32 [n] each."""

    def __init__(self, blocks: Blocks, count: int) -> None:
        self._scores = np.full_like(blocks.units, -np.inf)
        self.numbers = [np.zeros_like(blocks.units) for _ in range(count)]

    def offer(self, scores: np.ndarray, *numbers: np.ndarray) -> None:
        """Take numbers where they score more than all before; NaN never does."""
        better = scores > self._scores
        np.copyto(self._scores, scores, where=better)
        for kept, new in zip(self.numbers, numbers, strict=True):
            np.copyto(kept, new, where=better)


def inverses(scales: np.ndarray) -> np.ndarray:
    """1 ÷ scale, and 0 where that is not a finite number."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.reciprocal(scales)
    return np.asarray(np.where(np.isfinite(inverse), inverse, ZERO))


def _weights(rows: np.ndarray, grid: Grid, evidence: Evidence) -> np.ndarray | None:
    """float32 [block, n]; in a block whose channels are all dead, all count alike."""
    if evidence.importance is None:
        return None
    relative = evidence.importance / max(evidence.importance.max(), np.finfo(np.float32).tiny)
    weights = lanes(np.broadcast_to(relative, rows.shape), grid)
    weights[:, ~weights.any(axis=0)] = ONE
    return weights
