"""Make a thing of the cache once: the first process makes it, others wait and then find it.

Invariant: what lies at a target is complete, since it is put there in one step.
A cache that cannot be written is no hindrance, see `edgeproof.files.cache.usable`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeproof.files.atomic import atomic_folder
from edgeproof.files.cache import usable
from edgeproof.files.lock import exclusive

T = TypeVar("T")


def once(target: Path, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What is kept at `target`, made first if it is not there.

    Args:
        target: the file or folder; only its lock is taken here.
        find: reads it; None where it is missing or damaged.
        make: puts it there in one step (`edgeproof.files.cache.keep`), and returns what `find`
            would.

    Raises:
        InputError: what `find` or `make` raises.
    """
    found = find()
    if found is None:
        with exclusive(target):
            found = find()
            if found is None:
                found = make()
    return found


def once_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `target`; if it is not there, `fill` gets an empty one that then becomes it.

    Where the cache cannot be written, its stand-in.

    Raises:
        InputError: the disk is full; and what `fill` raises.
    """
    place = target if target.is_dir() else usable(target)

    def make() -> Path:
        with atomic_folder(place) as folder:
            fill(folder)
        return place

    return once(place, lambda: place if place.is_dir() else None, make)
