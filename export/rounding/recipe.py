"""The part of a recipe that says how values get their codes, the same in every format."""

from __future__ import annotations

from dataclasses import dataclass

from edgeproof.artifact import Recipe
from export.rounding.registry import NEAREST

# Names of the options; the second is also what a matrix adds to a variant's name.
ROUNDING, IMATRIX = "rounding", "imatrix"


@dataclass(frozen=True)
class Rounding:
    """A method by its name, and the importance matrix by the hex SHA-256 of its file, if any."""

    method: str = NEAREST
    imatrix: str | None = None


@dataclass(frozen=True, kw_only=True)
class RoundedRecipe(Recipe):
    """A recipe of a format that rounds."""

    rounding: Rounding = Rounding()
