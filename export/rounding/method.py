"""The seam of all rounding: rows of a weight, a grid and evidence → codes, scales and offsets.

Blocks are *lanes*: of n blocks, value i of every block is in row i of an array [block, n]. Each
step of a method is then one long vector operation, and packing joins whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from export.rounding.cast import FLOAT32
from export.rounding.evidence import Evidence, Need
from export.rounding.grid import BlockAxis, Grid


@dataclass(frozen=True)
class Rounded:
    """n blocks of a weight, those of its first row first.

    `codes` of the grid's `code_dtype` [block, n], in its range; what pads a last block has codes
    too, which mean nothing. `scales` of its `scale_dtype` [n]. `offsets` [n]: zero points uint8, or
    minima of its `scale_dtype`; empty for the other kinds.
    """

    codes: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))

    def zero_padded(self, columns: int) -> np.ndarray:
        """The codes [block, n] of rows of `columns` weights, 0 for what pads a row's last block."""
        block = len(self.codes)
        rest, blocks = columns % block, -(-columns // block)
        if not rest:
            return self.codes
        codes: np.ndarray = self.codes.copy()
        codes[rest:, blocks - 1 :: blocks] = 0
        return codes


class Method(Protocol):
    """A way to choose codes. Its name is in `export.rounding.registry`."""

    @property
    def needs(self) -> Need:
        """The evidence that it cannot do without."""

    def round(self, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Rounded:
        """Round some rows of a weight.

        Args:
            rows: [n, in] in float32, float16 or bfloat16, finite; not to be changed. On an
                `BlockAxis.FLAT` grid, blocks of the matrix begin with the first of these rows.
            grid: what the weight is stored on.
            evidence: what is known of it; for all of its rows the same.

        Raises:
            InputError: the values do not fit the grid; the message has `evidence.name`.
        """


def lanes(rows: np.ndarray, grid: Grid) -> np.ndarray:
    """The blocks of rows [n, in] as float32 [block, blocks]; zeros pad a last block.

    The array is the caller's own.
    """
    lines = rows.reshape(1, -1) if grid.axis is BlockAxis.FLAT else rows
    block = grid.block or lines.shape[1]
    padding = -lines.shape[1] % block
    if padding:
        lines = np.pad(lines, ((0, 0), (0, padding)))
    return np.array(lines.reshape(-1, block).T, FLOAT32, order="C")
