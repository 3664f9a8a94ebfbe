"""The method `search`: of many scales, for each block the one with the least weighted square error.

Both signs of a scale are tried. A code is always the nearest one for the scale as it is stored, so
that one number (with a minimum or zero point two) is searched for each block: from fixed fractions
of the block's extremes, codes and least squares give better ones, and what is rounded and measured
again may stay. What `nearest` would store is among them: no block gets worse, but for float32's
rounding of the error itself.

Invariant: codes and scales follow from the values, the importance and the grid alone; a grid and
its mirror image (levels −8 … 7 and −7 … 8) get the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from export.rounding.evidence import Evidence, Need
from export.rounding.grid import POWERS_OF_TWO, WHOLE_ROW, Grid, Kind, Rules
from export.rounding.method import Rounded
from export.rounding.nearest import Nearest
from export.rounding.search import affine, powers, signed, zero_point
from export.rounding.search.blocks import Blocks

# Whose `nearest` stores a block's minimum and, as scale, its range divided by the greatest code.
ENDS = frozenset({Rules.GGML})
MOST_BITS = 5  # with more, what rounding costs is below what runtimes add

RULES: Mapping[Kind, Callable[[Blocks, Grid], Rounded]] = {
    Kind.SIGNED: signed.search,
    Kind.CODEBOOK: signed.search,
    Kind.ZERO_POINT: zero_point.search,
}


class Search:
    """See `export.rounding.method.Method`. Importance weighs the error where it was measured.

    What has more than 5 bits, or one scale for a whole row, is rounded as by `nearest`.
    """

    needs = Need.IMPORTANCE_IF_THERE

    def round(self, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Rounded:
        """Of least weighted squared error, as far as the search goes."""
        if grid.bits > MOST_BITS or grid.block == WHOLE_ROW:
            return Nearest().round(rows, grid, evidence)
        blocks = Blocks.of(rows, grid, evidence)
        if grid.scale_dtype == POWERS_OF_TWO:
            return powers.search(blocks, grid)
        if grid.kind in RULES:
            return RULES[grid.kind](blocks, grid)
        if grid.kind is not Kind.MINIMUM:
            return Nearest().round(rows, grid, evidence)
        # Its ends may be others than those of the values; they are known without rounding to them.
        start = None if grid.rules in ENDS else Nearest().round(rows, grid, evidence)
        return affine.search(blocks, grid, start)
