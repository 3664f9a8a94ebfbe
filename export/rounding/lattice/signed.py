"""Signed scale × integer around a fixed zero: Q4_0, Q5_0, Q8_0, MatMulNBits, MLC's groups.

The integers are −2^(bits − 1) … 2^(bits − 1) − 1 for all of them: where a format's codes reach one
further up than down, as MLC's do, scale and integers are stored mirrored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.rounding.grid import Grid, Kind
from export.rounding.lattice.levels import SignedLevels
from export.rounding.lattice.scales import find_scales
from export.rounding.method import Rounded


def find(values: np.ndarray, dtype: np.dtype[Any], grid: Grid) -> tuple[Rounded, np.ndarray]:
    """The scale is positive unless a value needs the lowest integer with a negative one."""
    found = find_scales(
        values, dtype, SignedLevels(grid.bits, lowest=grid.kind is Kind.SIGNED), grid.scale_dtype
    )
    mirrored = grid.kind is Kind.SIGNED and grid.zero < 1 << (grid.bits - 1)
    levels, scales = found.levels, found.scales
    if mirrored:
        levels, scales = -levels, -scales
    codes = (levels + np.float32(grid.zero)).astype(grid.code_dtype)
    return Rounded(codes, scales), found.found
