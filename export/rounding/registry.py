"""The rounding methods by the name that `--rounding` gives them: one module each."""

from __future__ import annotations

from edgeproof.errors import InputError
from export.rounding.evidence import Need
from export.rounding.method import Method
from export.rounding.nearest import Nearest

NEAREST = "nearest"  # what is used where nothing else is asked for
METHODS: dict[str, Method] = {NEAREST: Nearest()}


def method_of(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: unknown; the message lists the known ones.
    """
    if name not in METHODS:
        raise InputError(f"--rounding: unknown method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def methods_that_use(need: Need) -> list[str]:
    """Names of the methods that need that evidence."""
    return [name for name, method in METHODS.items() if method.needs is need]
