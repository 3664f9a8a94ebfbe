"""Look for tensors that lie on their grid already, before anything is written.

Most checkpoints do not: the first blocks of a tensor say so, and no more of it is read. One that
passes is read as a whole, so that what is promised is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from edgeproof.artifact import Variant
from export.checkpoint import Checkpoint
from export.rounding.grid import Grid
from export.rounding.lattice import find_lattice
from export.rounding.recipe import OnGrid, RoundedRecipe
from export.rounding.registry import DEFAULT
from export.targets import Target

R = TypeVar("R", bound=RoundedRecipe)
# A tensor that is to be rounded, and the grid.
Weight = tuple[Target, Grid]

FIRST_BLOCKS = 8
# Values per step: temporaries stay in the L2 cache.
STEP_VALUES = 64_000


def looks(recipe: RoundedRecipe) -> bool:
    """Whether the recipe leaves it to the checkpoint which tensors are rounded."""
    return recipe.rounding.method == DEFAULT and recipe.rounding.imatrix is None


def with_on_grid(variant: Variant[R], found: OnGrid | None) -> Variant[R]:
    """The variant with what was found in its recipe."""
    if found is None:
        return variant
    rounding = replace(variant.recipe.rounding, on_grid=found)
    return replace(variant, recipe=replace(variant.recipe, rounding=rounding))


def on_grid(checkpoint: Checkpoint, weights: Iterable[Weight]) -> OnGrid | None:
    """Which of the weights lie on their grid with all their blocks; None if none does.

    A fused one does only if all its parts do.

    Raises:
        InputError: a value of a tensor that is read as a whole is NaN or infinite.
    """
    names: list[str] = []
    count = total = 0
    for target, grid in weights:
        total += 1
        if begins_on_grid(checkpoint, target, grid) and lies_on_grid(checkpoint, target, grid):
            count += 1
            names += [source.name for source in target.sources]
    if not count:
        return None
    return OnGrid(count, total, None if count == total else tuple(names))


def begins_on_grid(checkpoint: Checkpoint, target: Target, grid: Grid) -> bool:
    """Whether the first blocks lie on the grid that are not zero: a quick way to say no."""
    columns = target.shape[-1]
    rows = -(-FIRST_BLOCKS // grid.blocks(columns))
    first = checkpoint.first_rows(target.sources[0].name, rows)
    return _all_found(first[:, : FIRST_BLOCKS * grid.block] if grid.block else first, grid)


def lies_on_grid(checkpoint: Checkpoint, target: Target, grid: Grid) -> bool:
    """Whether all blocks do; stops at the first that does not."""
    step = max(1, STEP_VALUES // target.shape[-1])
    return all(
        _all_found(rows[start : start + step], grid)
        for rows in checkpoint.blocks(target)
        for start in range(0, len(rows), step)
    )


def _all_found(rows: np.ndarray, grid: Grid) -> bool:
    return bool(np.isfinite(rows).all() and find_lattice(rows, grid).on_grid.all())
