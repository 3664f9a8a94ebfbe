"""`--residual-scale`: room for activations that come near float16's greatest number."""

from __future__ import annotations

import math
from dataclasses import replace

import click

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.onnx.recipe import Recipe

# float16's smallest normal number: the scale is a constant of that type in the graph.
SMALLEST_SCALE = 2.0**-14

RESIDUAL_OPTION = click.Option(
    ["--residual-scale"],
    type=float,
    metavar="S",
    help="Compute with a residual stream S times as large (a power of two below 1, for example"
    " 0.25), for models whose activations come near float16's 65504. Norms divide S out again:"
    " the function stays the same. The parity report's fp16_headroom says when it is needed.",
)


def scaled(variant: Variant[Recipe], residual_scale: float | None) -> Variant[Recipe]:
    """The variant with the option's value in its recipe and in its name.

    Raises:
        InputError: no power of two below 1, or a variant without float16 activations.
    """
    if residual_scale is None:
        return variant
    if not SMALLEST_SCALE <= residual_scale < 1 or math.frexp(residual_scale)[0] != 0.5:
        raise InputError(
            f"--residual-scale {residual_scale:g}: it must be a power of two from"
            f" {SMALLEST_SCALE:g} to 0.5, so that scaling rounds nothing"
        )
    if variant.recipe.activations != "float16":
        raise InputError(f"--residual-scale: {variant.name} has no float16 activations to protect")
    return replace(
        variant,
        name=f"{variant.name}-residual{residual_scale:g}",
        recipe=replace(variant.recipe, residual_scale=residual_scale),
        aliases=(),
    )
