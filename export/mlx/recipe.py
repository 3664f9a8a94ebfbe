"""What an MLX variant asks for: bits of a code, the size of a group, and the dtype beside codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from edgeproof.artifact import Facts, Precision, Variant
from edgeproof.errors import InputError
from export.mlx.schemes import DEFAULT_GROUP, FLOATS, GROUPS, Scheme
from export.rounding.options import (
    IMATRIX_OPTION,
    ROUNDING_OPTION,
    with_imatrix,
    with_rounding,
)
from export.rounding.recipe import ROUNDING, RoundedRecipe, Rounding
from export.rounding.registry import LATTICE

AUTO = "auto"
GROUP, ACTIVATIONS = "group-size", "activations"

OPTIONS = (
    click.Option(
        [f"--{GROUP}"],
        type=click.Choice([str(size) for size in GROUPS]),
        help="Values that share a scale and a bias. What lies on a grid of llama.cpp's (Q4_0 to"
        f" Q8_0) or is recovered is stored exactly in groups of 32.  [default: {DEFAULT_GROUP}]",
    ),
    click.Option(
        [f"--{ACTIVATIONS}"],
        type=click.Choice([*FLOATS]),
        help="Dtype of scales, biases and norms, and so of what MLX computes in.  [default: what"
        " the checkpoint's config.json says; float16 for what is stored exactly]",
    ),
    ROUNDING_OPTION,
    IMATRIX_OPTION,
)


@dataclass(frozen=True)
class Recipe(RoundedRecipe):
    """`bits` of a code and values in a `group`; None for floats.

    `activations` is the dtype of floats; None for the checkpoint's own. `recovered`: recovery.json
    gives each tensor its bits. `mode` is MLX's name of what codes stand for; None for `affine`.
    """

    bits: int | None = None
    group: int | None = None
    activations: str | None = None
    recovered: bool | None = None
    mode: str | None = None

    @property
    def facts(self) -> Facts:
        """MLX computes in the dtype of the floats, which a checkpoint may decide."""
        return Facts(activations=self.activations)


def variant_of(scheme: Scheme) -> Variant[Recipe]:
    """The scheme as the command line and the manifest know it."""
    group = None if scheme.bits is None else scheme.group
    recipe = Recipe(scheme.bits, group, scheme.activations, mode=scheme.mode)
    return Variant("mlx", scheme.name, scheme.precision, recipe, scheme.aliases)


RECOVERED = Variant(
    "mlx",
    "recovered",
    Precision.LOW_BIT,
    Recipe(None, 32, "float16", recovered=True, rounding=Rounding(LATTICE)),
    (AUTO,),
)


def with_options(
    variant: Variant[Recipe],
    *,
    group_size: str | None = None,
    activations: str | None = None,
    rounding: str | None = None,
    imatrix: Path | None = None,
) -> Variant[Recipe]:
    """The variant with the options' values in its recipe and in its name, such as q4-g32.

    Raises:
        InputError: an option that does not fit the variant, an unknown method, no importance
            matrix.
    """
    recipe = variant.recipe
    if recipe.recovered:
        for option, value in (
            (GROUP, group_size),
            (ACTIVATIONS, activations),
            (ROUNDING, rounding),
        ):
            if value is not None:
                raise InputError(f"--{option}: {variant.name} has codes already; leave it out")
    if group_size is not None and int(group_size) != recipe.group:
        if recipe.group is None:
            raise InputError(f"--{GROUP}: {variant.name} stores floats, which have no groups")
        if recipe.mode is not None:
            raise InputError(f"--{GROUP}: {variant.name} has groups of {recipe.group} only")
        changed = replace(recipe, group=int(group_size))
        variant = _renamed(variant, f"g{group_size}", changed)
    if recipe.mode is not None and rounding == LATTICE:
        raise InputError(
            f"--{ROUNDING} {LATTICE}: {variant.name} stores what lies on its grid as it is without"
            " it; leave it out"
        )
    if activations is not None:
        if recipe.activations is not None:
            raise InputError(f"--{ACTIVATIONS}: {variant.name} is that of {recipe.activations}")
        variant = _renamed(variant, activations, replace(variant.recipe, activations=activations))
    has_codes = recipe.bits is not None
    return with_imatrix(with_rounding(variant, rounding, has_codes=has_codes), imatrix)


def _renamed(variant: Variant[Recipe], label: str, recipe: Recipe) -> Variant[Recipe]:
    return replace(variant, name=f"{variant.name}-{label}", recipe=recipe, aliases=())
