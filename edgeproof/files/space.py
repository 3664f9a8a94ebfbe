"""What a disk has and takes: said before a long run, not at its end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from edgeproof.display import megabytes
from edgeproof.errors import InputError


def stored_bytes(folder: Path) -> int:
    """Bytes of a file, or of all files below a folder, as far as it can be looked into."""
    size = folder.lstat().st_size if folder.is_file() else 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  200,000
    return size


def require_space(target: Path, needed: int) -> None:
    """Refuse to begin what does not fit on the disk of `target`, which need not exist yet.

    Raises:
        InputError: fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(_existing(target)).free
    if needed > free:
        raise InputError(
            f"{target}: {megabytes(needed)} MB are needed and {megabytes(free)} MB are free;"
            " free some space or write to another disk"
        )


def require_folder(folder: Path) -> None:
    """Refuse to begin what is to be written into a folder that nothing can be written into.

    It need not exist yet.

    Raises:
        InputError: naming it.
    """
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"{folder}: a link to what is not there")
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InputError(f"{folder}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written ({nearest} may not be changed)")


def require_files(*paths: Path | None) -> None:
    """As `require_folder`, for files that are to be written, or replaced; None is no file.

    Raises:
        InputError: one is a folder, a device or a pipe, or its folder cannot be written.
    """
    for path in filter(None, paths):
        if path.is_dir():
            raise InputError(f"{path}: a folder; name a file")
        if path.exists() and not path.is_file():  # a device or pipe, which a file would replace
            raise InputError(f"{path}: no regular file; name one")
        require_folder(path.parent)


def require_spared(*outputs: Path | None, reads: Iterable[Path | None]) -> None:
    """Refuse outputs that would take the place of a file that is read, or of each other.

    Raises:
        InputError: naming the output.
    """
    read = [path for path in reads if path is not None and path.exists()]
    named: set[str] = set()
    for output in filter(None, outputs):
        if (place := os.path.realpath(output)) in named:
            raise InputError(f"{output}: named for two outputs")
        named.add(place)
        if output.exists() and any(output.samefile(path) for path in read):
            raise InputError(f"{output}: is read, it must not be written; name another file")


def _existing(path: Path) -> Path:
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder
