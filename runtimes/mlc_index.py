"""The index of an MLC folder's weights, by its name of today or that of before."""

from __future__ import annotations

from pathlib import Path

NAME, OLD_NAME = "tensor-cache.json", "ndarray-cache.json"


def index_path(folder: Path) -> Path:
    """The one that is there; today's where none is."""
    path, old = folder / NAME, folder / OLD_NAME
    return old if old.is_file() and not path.is_file() else path
