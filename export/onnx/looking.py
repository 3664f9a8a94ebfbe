"""What of a variant only the checkpoint can tell: its grids, and what lies on a grid already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeproof.artifact import Variant
from edgeproof.families import Parameter, Role
from export.checkpoint import Checkpoint
from export.onnx.blocks import BLOCKS
from export.onnx.fusion import QUERY_KEY_VALUE, fuses_query_key_value
from export.onnx.recipe import Recipe
from export.rounding.looking import Weight, looks, on_grid, with_on_grid
from export.targets import Target, stack_rows

TABLES = (Role.EMBEDDING, Role.HEAD)


def complete_from_checkpoint(variant: Variant[Recipe], checkpoint: Checkpoint) -> Variant[Recipe]:
    """The variant with the tensors that need no rounding: blocks of the stream's own size only."""
    recipe = variant.recipe
    if not looks(recipe) or recipe.residual_scale != 1:
        return variant
    return with_on_grid(variant, on_grid(checkpoint, _weights(checkpoint, recipe)))


def _weights(checkpoint: Checkpoint, recipe: Recipe) -> Iterator[Weight]:
    """What is stored in blocks, fused as the graph has it."""
    scale_dtype = np.dtype(recipe.activations)
    layers: dict[int | None, list[Parameter]] = {}
    fused = fuses_query_key_value(checkpoint.config)
    for parameter in checkpoint.parameters:
        if len(parameter.shape) == 1:
            continue
        name = recipe.embedding if parameter.role in TABLES else recipe.linear
        if name not in BLOCKS:
            continue
        grid = BLOCKS[name].grid(scale_dtype)
        if not (fused and parameter.role in QUERY_KEY_VALUE):
            yield Target(parameter.name, (parameter,), parameter.shape), grid
            continue
        parts = layers.setdefault(parameter.layer, [])
        parts.append(parameter)
        if len(parts) == len(QUERY_KEY_VALUE):
            rows = sum(part.shape[0] for part in parts)
            yield Target(parameter.name, tuple(parts), (rows, parameter.shape[1]), stack_rows), grid


def for_checkpoint(
    variant: Variant[Recipe], checkpoint: Checkpoint, recovered: dict[str, Variant[Recipe]]
) -> Variant[Recipe]:
    """Of a recovered checkpoint a plain `q4` or `q4f16` is the recovered one.

    `recovered` has those by their dtype. An option about storage or rounding asks for something
    else, and gets it.
    """
    recipe = variant.recipe
    ours = recovered.get(recipe.dtype)
    scale = recipe.residual_scale
    if checkpoint.recovery is None or ours is None or not variant.name.startswith(recipe.dtype):
        return variant
    rest = variant.name.removeprefix(recipe.dtype)
    if rest != (f"-residual{scale:g}" if scale != 1 else ""):
        return variant
    name = f"{ours.name}{rest}"
    return replace(ours, name=name, recipe=replace(ours.recipe, residual_scale=scale))
