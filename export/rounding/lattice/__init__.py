"""The method `lattice`: scale and codes of values that already lie on the grid, or a refusal.

On the grid means: scale × code, rounded to the checkpoint's dtype, gives every stored value of a
block. Of several scales the smallest is taken; the modules, one for each kind of grid, say which
sign. Blocks of zeros get what `nearest` makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.rounding.evidence import Evidence, Need
from export.rounding.grid import BlockAxis, Grid, Kind
from export.rounding.lattice import codebook, minimum, signed, window
from export.rounding.method import Rounded, lanes
from export.rounding.nearest import RULES

# (values float32 [block, n], dtype of the checkpoint, grid) → blocks, and which lie on the grid
Find = Callable[[np.ndarray, "np.dtype[Any]", Grid], tuple[Rounded, np.ndarray]]
FINDERS: Mapping[Kind, Find] = {
    Kind.CENTRED: signed.find,
    Kind.SIGNED: signed.find,
    Kind.ZERO_POINT: window.find,
    Kind.MINIMUM: minimum.find,
    Kind.CODEBOOK: codebook.find,
}
# IQ4_NL has no rule of ours: llama.cpp stores a block of zeros as scale 0 with this code.
ZERO_CODE = 8


@dataclass(frozen=True)
class Found:
    """Blocks of some rows: those that lie on the grid are exact, the others mean nothing."""

    rounded: Rounded
    on_grid: np.ndarray


class Lattice:
    """See `export.rounding.method.Method`."""

    needs = Need.ON_GRID

    def round(self, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Rounded:
        """Exactly the values of the rows.

        Raises:
            InputError: a block does not lie on the grid; the message says how far it is off.
        """
        found = find_lattice(rows, grid)
        if not found.on_grid.all():
            raise InputError(_refusal(rows, grid, found.on_grid, evidence.name))
        return found.rounded


def find_lattice(rows: np.ndarray, grid: Grid) -> Found:
    """Scale and codes of each block of rows [n, in], as the checkpoint has them."""
    values = lanes(rows, grid)
    zero = (values.max(axis=0) == 0) & (values.min(axis=0) == 0)
    rest = np.flatnonzero(~zero)
    whole = rest.size == zero.size
    rounded, on_grid = FINDERS[grid.kind](values if whole else values[:, rest], rows.dtype, grid)
    if whole:
        return Found(rounded, on_grid)
    zeros = _zeros(values[:, zero], grid)
    merged = Rounded(
        *(
            _merged(zero, ours, theirs)
            for ours, theirs in (
                (rounded.codes, zeros.codes),
                (rounded.scales, zeros.scales),
                (rounded.offsets, zeros.offsets),
            )
        )
    )
    all_on_grid = zero.copy()
    all_on_grid[rest] = on_grid
    return Found(merged, all_on_grid)


def _zeros(values: np.ndarray, grid: Grid) -> Rounded:
    """What `nearest` makes of blocks [block, n] of zeros."""
    rule = RULES.get((grid.rules, grid.kind))
    if rule is not None:
        return rule(np.ascontiguousarray(values.T), grid, "")
    codes = np.full(values.shape, ZERO_CODE, np.uint8)
    return Rounded(codes, np.zeros(values.shape[1], grid.scale_dtype))


def _merged(zero: np.ndarray, ours: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Both along the last axis, each in its places; an array that a kind has not stays empty."""
    if ours.size == zeros.size == 0:
        return ours
    result = np.empty((*ours.shape[:-1], zero.size), ours.dtype)
    result[..., ~zero], result[..., zero] = ours, zeros
    return result


def _refusal(rows: np.ndarray, grid: Grid, on_grid: np.ndarray, name: str) -> str:
    off = np.flatnonzero(~on_grid)
    block = lanes(rows, grid)[:, off[0]]
    place = "of the matrix" if grid.axis is BlockAxis.FLAT else "of a row"
    size = f"{grid.block} values " if grid.block else ""
    example = ", ".join(f"{value:.7g}" for value in block[:3])
    return (
        f"{name} does not lie on the grid that it is to be stored on"
        f" ({grid.bits} bits, {grid.kind.value}): of {on_grid.size} blocks of {size}{place}"
        f" {off.size} are off it, the first is {example}, …; choose another --dtype, or leave"
        " --rounding out"
    )
