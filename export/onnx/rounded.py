"""Weights that are rounded to codes: a few rows at a time, through the method of the variant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from export.checkpoint import Checkpoint
from export.onnx.weights import Parts
from export.rounding import BlockAxis, Grid, Rounded, Rounder
from export.targets import Target

# Values per step: the temporaries of rounding stay in the L2 cache.
GROUP_VALUES = 64_000

# An array for each stored tensor of a weight, codes first.
Packed = tuple[np.ndarray, ...]
# (rounded rows, how many rows) → their arrays
Pack = Callable[[Rounded, int], Packed]


def rounded_parts(
    target: Target, grid: Grid, rounder: Rounder, pack: Pack, values: int = GROUP_VALUES
) -> Parts:
    """The stored tensors of a weight [out, in]; about so many `values` are rounded in one step."""
    columns = target.shape[1]
    # Each step begins with a block, also where blocks do not end with rows.
    unit = grid.block // math.gcd(grid.block, columns) if grid.axis is BlockAxis.FLAT else 1
    step = max(1, values // (columns * unit)) * unit

    def produce(checkpoint: Checkpoint) -> Iterator[Packed]:
        for rows in _whole_units(checkpoint.blocks(target), unit):
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                yield pack(rounder.round(some, grid, target), len(some))

    return Parts(produce)


def _whole_units(blocks: Iterator[np.ndarray], unit: int) -> Iterator[np.ndarray]:
    """The same rows in blocks of a multiple of `unit`, but for the last one."""
    rest = None
    for rows in blocks:
        joined = rows if rest is None else np.concatenate([rest, rows])
        whole = len(joined) // unit * unit
        rest = joined[whole:] if whole < len(joined) else None
        yield joined[:whole]
    if rest is not None:
        yield rest
