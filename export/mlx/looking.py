"""What of a variant only the checkpoint can tell: which of its tensors need no rounding."""

from __future__ import annotations

from edgeproof.artifact import Variant
from export.checkpoint import Checkpoint
from export.mlx.exporter import plan_items
from export.mlx.recipe import Recipe
from export.mlx.schemes import EXACT
from export.rounding.cast import BFLOAT16
from export.rounding.looking import begins_on_grid, lies_on_grid, looks, with_on_grid
from export.rounding.recipe import OnGrid


def complete_from_checkpoint(variant: Variant[Recipe], checkpoint: Checkpoint) -> Variant[Recipe]:
    """The variant with the tensors that lie on a grid which its codes hold exactly.

    bfloat16 scales, where they are asked for, hold none: the grids' are float16.
    """
    recipe = variant.recipe
    if not looks(recipe) or recipe.bits is None or recipe.activations == BFLOAT16.name:
        return variant
    if recipe.mode is not None:
        return variant
    grids = [grid for grid in EXACT.get(recipe.bits, ()) if grid.block == recipe.group]
    targets = [item.target for item in plan_items(checkpoint, recipe) if item.bits is not None]
    exact = [
        target
        for target in targets
        if any(
            begins_on_grid(checkpoint, target, grid) and lies_on_grid(checkpoint, target, grid)
            for grid in grids
        )
    ]
    if not exact:
        return variant
    names = tuple(target.name for target in exact)
    every = len(exact) == len(targets)
    return with_on_grid(variant, OnGrid(len(exact), len(targets), None if every else names))
