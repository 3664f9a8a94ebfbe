"""Positive scale × (code − zero point), a zero point for each block: MatMulNBits, asymmetric."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.rounding.grid import Grid
from export.rounding.lattice.levels import WindowLevels, highest, lowest
from export.rounding.lattice.scales import find_scales
from export.rounding.method import Rounded


def find(values: np.ndarray, dtype: np.dtype[Any], grid: Grid) -> tuple[Rounded, np.ndarray]:
    """The zero point is the one nearest to the middle of the codes."""
    found = find_scales(values, dtype, WindowLevels(grid.bits), grid.scale_dtype)
    least, most = -lowest(found.levels), grid.highest - highest(found.levels)
    middle = np.float32(1 << (grid.bits - 1))
    zeros = np.minimum(np.maximum(middle, least), most)
    codes = (found.levels + zeros).astype(np.uint8)
    return Rounded(codes, found.scales, zeros.astype(np.uint8)), found.found
