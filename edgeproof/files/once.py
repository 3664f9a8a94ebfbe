"""Make a thing of the cache once: the first process makes it, others wait and then find it.

Invariant: what lies at a target is complete, since it is put there in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeproof.files.atomic import atomic_folder
from edgeproof.files.lock import exclusive

T = TypeVar("T")


def once(target: Path, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What is kept at `target`, made first if it is not there.

    Args:
        target: the file or folder; only its lock is taken here.
        find: reads it; None where it is missing or damaged.
        make: puts it there in one step, and returns what `find` would.

    Raises:
        InputError: the cache's folder of locks cannot be written; and what `find` or `make` raises.
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

    Raises:
        InputError: it cannot be written; and what `fill` raises.
    """

    def make() -> Path:
        with atomic_folder(target) as folder:
            fill(folder)
        return target

    return once(target, lambda: target if target.is_dir() else None, make)
