"""`--rounding` and `--imatrix`: how they enter a variant's recipe and name, in any format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.rounding.evidence import Need
from export.rounding.imatrix import keep_imatrix
from export.rounding.recipe import IMATRIX, ROUNDING, RoundedRecipe
from export.rounding.registry import (
    DEFAULT,
    LATTICE,
    METHODS,
    NEAREST,
    method_of,
    methods_with_importance,
)

R = TypeVar("R", bound=RoundedRecipe)

# What `--imatrix` without a value gives.
AUTO = "auto"

ROUNDING_OPTION = click.Option(
    [f"--{ROUNDING}"],
    metavar="NAME",
    help=f"How values get their codes: {', '.join(METHODS)}. {NEAREST} is bit for bit what the"
    f" runtime's own quantiser does. {LATTICE} stores exactly what lies on the grid already, and"
    f" refuses the rest; {DEFAULT} is {LATTICE} for tensors that lie on it, {NEAREST} for others."
    " search looks for the scale, of either sign, with the least squared error in each block of up"
    f" to 5 bits; more bits as {NEAREST}.  [default: {DEFAULT}]",
)
IMATRIX_OPTION = click.Option(
    [f"--{IMATRIX}"],
    type=click.Path(dir_okay=False, path_type=Path),
    is_flag=False,
    flag_value=AUTO,  # or the next option would be taken for the file
    metavar="FILE",
    help="Importance matrix from `python -m runtimes.imatrix` or llama-imatrix (GGUF), for a method"
    f" of --{ROUNDING} that uses one, such as search; the others do not and refuse it.",
)


def with_rounding(variant: Variant[R], name: str | None, *, has_codes: bool) -> Variant[R]:
    """The variant with the method in its recipe, and in its name unless it is the default.

    Raises:
        InputError: an unknown method, or one for a variant that stores nothing but floats.
    """
    if name is None:
        return variant
    method_of(name)
    if not has_codes:
        raise InputError(f"--{ROUNDING}: {variant.name} stores floats, which have no codes")
    if name == DEFAULT:
        return variant
    rounding = replace(variant.recipe.rounding, method=name)
    return replace(
        variant,
        name=f"{variant.name}-{name}",
        recipe=replace(variant.recipe, rounding=rounding),
        aliases=(),
    )


def with_imatrix(variant: Variant[R], path: Path | None) -> Variant[R]:
    """The variant with the file's SHA-256 in its recipe, if its method and a file fit together.

    Raises:
        InputError: a method without the matrix that it needs, a matrix without a use, no file, or
            one that cannot be read or is no importance matrix.
    """
    if path is None:
        check_needs(variant)
        return variant
    check_use(variant)
    if path == Path(AUTO):
        raise InputError(
            f"--{IMATRIX}: it takes a file here; `python -m runtimes.imatrix` makes one"
        )
    return named_after_imatrix(variant, with_digest(variant.recipe, keep_imatrix(path)))


def with_digest(recipe: R, digest: str) -> R:
    """The recipe with the matrix whose file has that hex SHA-256."""
    return replace(recipe, rounding=replace(recipe.rounding, imatrix=digest))


def named_after_imatrix(variant: Variant[R], recipe: R) -> Variant[R]:
    """The variant with that recipe, which is about its matrix, and `-imatrix` in its name.

    Two different matrices give the same name: the second artifact replaces the first.
    """
    return replace(variant, name=f"{variant.name}-{IMATRIX}", recipe=recipe, aliases=())


def check_needs(variant: Variant[RoundedRecipe]) -> None:
    """Refuse a method that needs a matrix where none is given.

    Raises:
        InputError: naming the option.
    """
    name = variant.recipe.rounding.method
    if method_of(name).needs is Need.IMPORTANCE:
        raise InputError(f"--{ROUNDING} {name}: it needs {Need.IMPORTANCE.value}; add --{IMATRIX}")


def check_use(variant: Variant[RoundedRecipe]) -> None:
    """Refuse a matrix that the variant's method does not use.

    Raises:
        InputError: with the methods that use one.
    """
    name = variant.recipe.rounding.method
    using = methods_with_importance()
    if name not in using:
        choose = f", or choose --{ROUNDING} {' or '.join(using)}" if using else ""
        raise InputError(f"--{IMATRIX}: the method {name} does not use it; leave it out{choose}")
