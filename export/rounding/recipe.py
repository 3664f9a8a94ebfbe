"""The part of a recipe that says how values get their codes, the same in every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.artifact import Recipe
from export.rounding.registry import DEFAULT

# Names of the options; the second is also what a matrix adds to a variant's name.
ROUNDING, IMATRIX = "rounding", "imatrix"


@dataclass(frozen=True)
class OnGrid:
    """How many of the tensors that would be rounded lie on their grid already.

    These are stored exactly. `tensors` has their names in the checkpoint; None where all are.
    """

    count: int
    of: int
    tensors: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Rounding:
    """A method by its name, and the importance matrix by the hex SHA-256 of its file, if any.

    `on_grid` is what `rounding.looking` found in the checkpoint for the default method.
    """

    method: str = DEFAULT
    imatrix: str | None = None
    on_grid: OnGrid | None = None


def as_asked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded recipe without what only the checkpoint told: what the command line asked for."""
    rounding = recipe.get(ROUNDING)
    if not isinstance(rounding, Mapping):
        return dict(recipe)
    return {**recipe, ROUNDING: {k: v for k, v in rounding.items() if k != "on_grid"}}


@dataclass(frozen=True, kw_only=True)
class RoundedRecipe(Recipe):
    """A recipe of a format that rounds."""

    rounding: Rounding = Rounding()


def on_grid_text(recipe: Recipe) -> str | None:
    """Which tensors are stored without being rounded, in words; None where it is none."""
    found = recipe.rounding.on_grid if isinstance(recipe, RoundedRecipe) else None
    if found is None:
        return None
    count = "all" if found.tensors is None else f"{found.count} of {found.of}"
    return f"{count} quantised tensors lie on their grid already and are stored exactly"
