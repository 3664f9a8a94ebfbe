"""How the weights of one variant are rounded: a method, and what was measured of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeproof.families import Parameter
from export.rounding.evidence import Evidence
from export.rounding.grid import Grid
from export.rounding.imatrix import Imatrix, read_imatrix
from export.rounding.method import Method, Rounded
from export.rounding.recipe import Rounding
from export.rounding.registry import method_of
from export.targets import Target


@dataclass(frozen=True)
class Rounder:
    """What a writer asks; `imatrix` is what the method knows of the model beside its weights."""

    method: Method
    imatrix: Imatrix | None = None

    def round(self, rows: np.ndarray, grid: Grid, target: Target) -> Rounded:
        """Some rows of the target on the grid; see `Method.round`."""
        return self.method.round(rows, grid, self._evidence(target))

    def _evidence(self, target: Target) -> Evidence:
        name = target.name if len(target.sources) > 1 else target.origin
        return Evidence(name, self.imatrix.of(target) if self.imatrix else None)


def rounder_of(rounding: Rounding, parameters: Sequence[Parameter]) -> Rounder:
    """What a recipe says of rounding, for the model with these parameters.

    Raises:
        InputError: the method is unknown; the importance matrix is no longer in the cache, or
            another model's.
    """
    method = method_of(rounding.method)
    if rounding.imatrix is None:
        return Rounder(method)
    imatrix = read_imatrix(rounding.imatrix)
    imatrix.check(parameters)
    return Rounder(method, imatrix)
