"""Say before a long run, not at its end, that the disk is too small."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeproof.display import megabytes
from edgeproof.errors import InputError


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


def _existing(path: Path) -> Path:
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder
