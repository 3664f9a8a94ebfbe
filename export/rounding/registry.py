"""The rounding methods by the name that `--rounding` gives them: one module each."""

from __future__ import annotations

from edgeproof.errors import InputError
from export.rounding.evidence import Need
from export.rounding.lattice import Lattice
from export.rounding.method import Method
from export.rounding.nearest import Nearest
from export.rounding.search import Search

# What is used where nothing else is asked for: `lattice` for tensors that lie on their grid, which
# is looked at beforehand (`rounding.looking`), and `nearest` for all others.
DEFAULT = "auto"
NEAREST, LATTICE = "nearest", "lattice"
METHODS: dict[str, Method] = {
    DEFAULT: Nearest(),
    NEAREST: Nearest(),
    LATTICE: Lattice(),
    "search": Search(),
}
# Methods with which the runtime's own quantiser may do the work: it gives the same bytes.
OWN = (DEFAULT, NEAREST)

WITH_IMPORTANCE = (Need.IMPORTANCE, Need.IMPORTANCE_IF_THERE)


def method_of(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: unknown; the message lists the known ones.
    """
    if name not in METHODS:
        raise InputError(f"--rounding: unknown method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def methods_with_importance() -> list[str]:
    """Names of the methods that can use an importance matrix."""
    return [name for name, method in METHODS.items() if method.needs in WITH_IMPORTANCE]
