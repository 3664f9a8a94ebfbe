"""What of a variant only the checkpoint can tell: which of its tensors lie on the scheme's grid."""

from __future__ import annotations

from collections.abc import Iterable

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from edgeproof.recovery import RECOVERY
from export.checkpoint import Checkpoint, recovered_grids
from export.mlc.parameters import mlc_targets
from export.mlc.recipe import Recipe
from export.mlc.schemes import Scheme
from export.rounding.looking import begins_on_grid, lies_on_grid, looks, with_on_grid
from export.rounding.recipe import OnGrid
from export.targets import Target, streamable

GRID = "q4"


def complete_from_checkpoint(variant: Variant[Recipe], checkpoint: Checkpoint) -> Variant[Recipe]:
    """The variant with the tensors that need no rounding; a fused one if none of its parts does."""
    scheme = variant.recipe.scheme
    if not looks(variant.recipe) or scheme.grid is None:
        return variant
    targets = [t for t in mlc_targets(checkpoint) if scheme.grid_of(t.role) is not None]
    exact = [target for target in targets if _lies_on_grid(checkpoint, target, scheme)]
    if not exact:
        return variant
    names = tuple(source.name for target in exact for source in target.sources)
    every = len(exact) == len(targets)
    return with_on_grid(variant, OnGrid(len(exact), len(targets), None if every else names))


def _lies_on_grid(checkpoint: Checkpoint, target: Target, scheme: Scheme) -> bool:
    grid, parts = scheme.grid_of(target.role), streamable(target)
    return grid is not None and all(
        check(checkpoint, part, grid) for check in (begins_on_grid, lies_on_grid) for part in parts
    )


def check_recovered(checkpoint: Checkpoint, targets: Iterable[Target], scheme: Scheme) -> None:
    """Refuse a recovered checkpoint that has another grid than the scheme's.

    Raises:
        InputError: naming the tensor.
    """
    grids = recovered_grids(checkpoint)
    for target in targets:
        for source in target.sources:
            grid = grids.get(source.name)
            if scheme.grid_of(target.role) is not None and grid != GRID:
                raise InputError(
                    f"{checkpoint.path / RECOVERY}: {source.name} is {grid or 'on no grid'}, and"
                    f" {scheme.name} stores nothing but {GRID}; recover the model with --format mlc"
                    " or any"
                )
