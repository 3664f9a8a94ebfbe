"""Scale × code + minimum, both of them any number of the grid's type."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.rounding.cast import FLOAT32
from export.rounding.grid import Grid
from export.rounding.method import Rounded
from export.rounding.search.blocks import Blocks, Leader, inverses

# Of the range from the block's minimum to its maximum, what is cut off below and above (or added).
# Where values matter unlike, its ends may matter little, and may then lie far outside.
CUTS = ((0.04, 0.04), (0.05, 0.0), (0.0, 0.05), (-0.03, -0.03))
WEIGHTED_CUTS = ((0.07, 0.07), (0.15, 0.15), (0.2, 0.0), (0.0, 0.2), (-0.03, -0.03))


def search(blocks: Blocks, grid: Grid, start: Rounded | None) -> Rounded:
    """See `export.rounding.search`; `start` is what `nearest` stores.

    None: each block's minimum, and its range divided by the greatest code.

    Raises:
        InputError: a scale or a minimum overflows the grid's type.
    """
    top, dtype = np.float32(grid.highest), grid.scale_dtype
    best, fitted = Leader(blocks, 2), Leader(blocks, 2)
    line = _Line(blocks)

    def codes(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
        """The nearest codes, float32 [block, n]."""
        quotients = blocks.quotients(scales, -minima * inverses(scales))
        np.rint(quotients, out=quotients)
        return np.clip(quotients, 0, top, out=quotients)

    def measured(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
        scales, minima = blocks.stored_scales(scales, dtype), blocks.stored(minima, dtype)
        found = codes(scales, minima)
        best.offer(-blocks.errors(found, scales, minima), scales, minima)
        return found

    lowest = blocks.values.min(axis=0)
    reach = blocks.values.max(axis=0) - lowest
    blocks.written(reach / top, dtype)  # both raise
    blocks.written(lowest, dtype)
    first = measured(*_stored_ends(blocks, start, reach / top, lowest, dtype))
    # Where `nearest` stores just these, they need no second try.
    vanishing = blocks.stored(reach / top, dtype) != blocks.stored_scales(reach / top, dtype)
    again = start is not None or vanishing.any()
    fitted.offer(*line.fit(measured(reach / top, lowest) if again else first))
    for below, above in CUTS if blocks.weights is None else WEIGHTED_CUTS:
        scales = reach * np.float32((1 - below - above) / grid.highest)
        fitted.offer(*line.fit(codes(scales, lowest + reach * np.float32(below))))
    measured(*fitted.numbers)
    scales, minima = best.numbers
    chosen = codes(scales, minima).astype(grid.code_dtype)
    return Rounded(chosen, blocks.written(scales, dtype), blocks.written(minima, dtype))


def _stored_ends(
    blocks: Blocks,
    start: Rounded | None,
    scales: np.ndarray,
    minima: np.ndarray,
    dtype: np.dtype[Any],
) -> tuple[np.ndarray, np.ndarray]:
    """What `nearest` stores, in the blocks' units; a scale that vanishes is 0."""
    if start is None:
        return blocks.stored(scales, dtype), blocks.stored(minima, dtype)
    return start.scales.astype(FLOAT32) / blocks.units, start.offsets.astype(FLOAT32) / blocks.units


class _Line:
    """Least squares of scale and minimum, given codes."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        weights = np.ones_like(blocks.values) if blocks.weights is None else blocks.weights
        self._mass = blocks.total(weights)
        self._mean = blocks.dot(weights, blocks.values) / self._mass

    def fit(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How much of the error is saved beside the mean's; scales; minima: three [n]."""
        blocks = self._blocks
        weighted = blocks.weighted(codes)
        centre = blocks.total(weighted) / self._mass
        squares = blocks.dot(weighted, codes) - centre * centre * self._mass
        products = blocks.dot(weighted, blocks.values) - centre * self._mean * self._mass
        scales = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
        return products * scales, scales, self._mean - scales * centre
