"""`--rounding` and `--imatrix`: how they enter a variant's recipe and name, in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.rounding.evidence import Need
from export.rounding.imatrix import keep_imatrix
from export.rounding.registry import METHODS, NEAREST, method_of, methods_that_use
from export.rounding.rounder import IMATRIX, ROUNDING, method_name

ROUNDING_OPTION = click.Option(
    [f"--{ROUNDING}"],
    metavar="NAME",
    help=f"How values get their codes: {', '.join(METHODS)}. nearest is bit for bit what the"
    f" runtime's own quantiser does.  [default: {NEAREST}]",
)
IMATRIX_OPTION = click.Option(
    [f"--{IMATRIX}"],
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Importance matrix from `python -m runtimes.imatrix` or llama-imatrix (GGUF), for a method"
    f" of --{ROUNDING} that uses one; {NEAREST} does not and refuses it.",
)


def with_rounding(variant: Variant, name: str | None, *, has_codes: bool) -> Variant:
    """The variant with the method in its recipe, and in its name unless it is the default.

    Raises:
        InputError: an unknown method, or one for a variant that stores nothing but floats.
    """
    if name is None:
        return variant
    method_of(name)
    if not has_codes:
        raise InputError(f"--{ROUNDING}: {variant.name} stores floats, which have no codes")
    if name == NEAREST:
        return variant
    return replace(
        variant,
        name=f"{variant.name}-{name}",
        storage=(*variant.storage, (ROUNDING, name)),
        aliases=(),
    )


def with_imatrix(variant: Variant, path: Path | None) -> Variant:
    """The variant with the file's SHA-256 in its recipe, if its method and a file fit together.

    Raises:
        InputError: a method without the matrix that it needs, a matrix without a use, a file that
            cannot be read or is no importance matrix.
    """
    if path is None:
        check_needs(variant)
        return variant
    check_use(variant)
    return with_imatrix_entries(variant, [(IMATRIX, keep_imatrix(path))])


def with_imatrix_entries(variant: Variant, entries: Sequence[tuple[str, str]]) -> Variant:
    """The variant with entries on its matrix in its recipe, and `-imatrix` in its name.

    Two different matrices give the same name: the second artifact replaces the first.
    """
    return replace(
        variant,
        name=f"{variant.name}-{IMATRIX}",
        storage=(*variant.storage, *entries),
        aliases=(),
    )


def check_needs(variant: Variant) -> None:
    """Refuse a method that needs a matrix where none is given.

    Raises:
        InputError: naming the option.
    """
    name = method_name(variant)
    if method_of(name).needs is Need.IMPORTANCE:
        raise InputError(f"--{ROUNDING} {name}: it needs {Need.IMPORTANCE.value}; add --{IMATRIX}")


def check_use(variant: Variant) -> None:
    """Refuse a matrix that the variant's method does not use.

    Raises:
        InputError: with the methods that use one.
    """
    name = method_name(variant)
    if method_of(name).needs is not Need.IMPORTANCE:
        using = " or ".join(methods_that_use(Need.IMPORTANCE))
        choose = f", or choose --{ROUNDING} {using}" if using else ""
        raise InputError(f"--{IMATRIX}: the method {name} does not use it; leave it out{choose}")
