"""How the weights of one variant are rounded: a method, and what was measured of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeproof.families import Parameter
from export.rounding.evidence import Evidence, Need
from export.rounding.grid import Grid
from export.rounding.imatrix import Imatrix, read_imatrix
from export.rounding.method import Method, Rounded
from export.rounding.recipe import Rounding
from export.rounding.registry import LATTICE, METHODS, method_of
from export.targets import Target

LATTICE_METHOD = METHODS[LATTICE]


@dataclass(frozen=True)
class Rounder:
    """What a writer asks.

    `imatrix` is what the method knows of the model beside its weights; tensors `on_grid`, by their
    names in the checkpoint, are stored exactly, whatever the method (None: all are).
    """

    method: Method
    imatrix: Imatrix | None = None
    on_grid: frozenset[str] | None = frozenset()

    def exact(self, target: Target) -> bool:
        """Whether the target's values lie on its grid, to be stored as the checkpoint has them."""
        if self.on_grid is None or self.method.needs is Need.ON_GRID:
            return True
        return bool(self.on_grid) and self.on_grid.issuperset(s.name for s in target.sources)

    def round(self, rows: np.ndarray, grid: Grid, target: Target) -> Rounded:
        """Some rows of the target on the grid; see `Method.round`."""
        method = LATTICE_METHOD if self.exact(target) else self.method
        return method.round(rows, grid, self._evidence(target))

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
        return Rounder(method, on_grid=_names(rounding))
    imatrix = read_imatrix(rounding.imatrix)
    imatrix.check(parameters)
    return Rounder(method, imatrix)


def _names(rounding: Rounding) -> frozenset[str] | None:
    """The tensors on their grid; None: all."""
    found = rounding.on_grid
    if found is None:
        return frozenset()
    return None if found.tensors is None else frozenset(found.tensors)
