"""Copies of files that share the disk's blocks, or the file itself, where the system can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

AT_ONCE = 1 << 30  # bytes


def copy_file(source: Path, target: Path) -> None:
    """Make a durable copy, which may be changed."""
    if not _share(source, target):
        shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def copy_folder(source: Path, target: Path) -> None:
    """Make durable copies of all files below a folder, below one that is there."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        copy_file(path, place)


def link_file(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where that cannot be: neither may be changed.

    Raises:
        FileNotFoundError, FileExistsError: as the system says.
    """
    try:
        target.hardlink_to(source)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:
        copy_file(source, target)


def _share(source: Path, target: Path) -> bool:
    """Copy inside the kernel; whether it could."""
    copy: Callable[[int, int, int], int] | None = getattr(os, "copy_file_range", None)
    if copy is None:
        return False
    try:
        with source.open("rb") as read, target.open("wb") as written:
            while copy(read.fileno(), written.fileno(), AT_ONCE):
                pass
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return source.stat().st_size == target.stat().st_size
