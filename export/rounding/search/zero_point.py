"""Scale × (code − zero point): the zero point is a code, so that the value 0 stays exact."""

from __future__ import annotations

import numpy as np

from export.rounding.grid import Grid
from export.rounding.method import Rounded
from export.rounding.search.affine import CUTS, WEIGHTED_CUTS
from export.rounding.search.blocks import ZERO, Blocks, Leader, inverses

BELOW_HALF = np.float32(0.49999997)  # the float32 before 0.5: halves are rounded as in MLAS


def search(blocks: Blocks, grid: Grid) -> Rounded:
    """See `export.rounding.search`.

    Raises:
        InputError: a scale overflows the grid's type.
    """
    top, dtype = np.float32(grid.highest), grid.scale_dtype
    best, fitted = Leader(blocks, 2), Leader(blocks, 2)

    def levels(scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
        quotients = blocks.quotients(scales, zeros)
        np.rint(quotients, out=quotients)
        np.clip(quotients, 0, top, out=quotients)
        quotients -= zeros
        return quotients

    def measured(scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
        scales = blocks.stored_scales(scales, dtype)
        found = levels(scales, zeros)
        best.offer(-blocks.errors(found, scales), scales, zeros)
        return found

    def window(below: float, above: float) -> tuple[np.ndarray, np.ndarray]:
        """Scales and zero points of the range without what is cut off."""
        scales = reach * np.float32(1 - below - above) / top
        start = lowest + reach * np.float32(below)
        zeros = np.clip(-start * inverses(scales), 0, top)
        return scales, np.trunc(zeros + BELOW_HALF)

    lowest = np.minimum(blocks.values.min(axis=0), ZERO)
    reach = np.maximum(blocks.values.max(axis=0), ZERO) - lowest
    scales, zeros = window(0, 0)
    blocks.written(scales, dtype)  # raises
    fitted.offer(*blocks.fit(measured(scales, zeros)), zeros)
    for below, above in CUTS if blocks.weights is None else WEIGHTED_CUTS:
        scales, zeros = window(below, above)
        fitted.offer(*blocks.fit(levels(scales, zeros)), zeros)
    measured(*fitted.numbers)
    scales, zeros = best.numbers
    chosen = levels(scales, zeros)
    chosen += zeros
    return Rounded(
        chosen.astype(grid.code_dtype), blocks.written(scales, dtype), zeros.astype(np.uint8)
    )
