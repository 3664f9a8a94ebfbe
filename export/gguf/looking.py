"""What of a variant only the checkpoint can tell: a measured matrix, and tensors on their grid."""

from __future__ import annotations

from edgeproof.artifact import Variant
from export.checkpoint import Checkpoint
from export.gguf import measured_imatrix
from export.gguf.assignment import assign
from export.gguf.recipe import Recipe
from export.gguf.storage import BlockType
from export.gguf.tensors import bind
from export.rounding.looking import begins_on_grid, looks, on_grid, with_on_grid


def complete_from_checkpoint(variant: Variant[Recipe], checkpoint: Checkpoint) -> Variant[Recipe]:
    """The variant with the measured matrix, or else with the tensors that need no rounding.

    Where llama.cpp would do the rounding, either all tensors lie on their grid or none counts.

    Raises:
        InputError: the matrix cannot be measured.
    """
    variant = measured_imatrix.complete_from_checkpoint(variant, checkpoint)
    recipe = variant.recipe
    if not looks(recipe) or not recipe.all_here:
        return variant
    items = assign(bind(checkpoint), recipe, {}, tied=checkpoint.config.tied)
    weights = [(i.target, i.type.grid) for i in items if isinstance(i.type, BlockType)]
    if not recipe.direct and not all(begins_on_grid(checkpoint, *weight) for weight in weights):
        return variant
    found = on_grid(checkpoint, weights)
    if not recipe.direct and found is not None and found.tensors is not None:
        return variant
    return with_on_grid(variant, found)
