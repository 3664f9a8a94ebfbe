"""Scale of either sign × a level of a codebook: IQ4_NL, NF4."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.rounding.grid import Grid
from export.rounding.lattice.levels import CodebookLevels
from export.rounding.lattice.scales import find_scales
from export.rounding.method import Rounded


def find(values: np.ndarray, dtype: np.dtype[Any], grid: Grid) -> tuple[Rounded, np.ndarray]:
    """The scale's sign follows from the level of the value of largest magnitude."""
    levels = CodebookLevels(grid.levels)
    found = find_scales(values, dtype, levels, grid.scale_dtype)
    return Rounded(levels.codes(found.levels).astype(np.uint8), found.scales), found.found
