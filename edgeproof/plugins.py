"""Objects that other packages bring by entry points, such as formats; loaded when they are used."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, TypeVar

from edgeproof.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


def brought(group: str, ours: Container[str]) -> dict[str, EntryPoint]:
    """The entry points of a group by name, but for ours, which none can replace.

    Nothing is imported.
    """
    from importlib.metadata import entry_points  # slow, and ours do not need it

    return {point.name: point for point in entry_points(group=group) if point.name not in ours}


def load(point: EntryPoint, kind: type[T]) -> T:
    """The object that an entry point names.

    Raises:
        InputError: it cannot be imported, or is not of that kind.
    """
    where = f"the entry point {point.name!r} of {point.group}, {point.value},"
    try:
        found = point.load()
    except Exception as error:  # noqa: BLE001 - other people's code may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{where} fails: {reason}") from None
    if not isinstance(found, kind):
        raise InputError(f"{where} is no {kind.__module__}.{kind.__qualname__}")
    return found
