"""One safetensors file as read-only memory-mapped arrays."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError
from edgeproof.files.safetensors import stored_tensors
from export.checkpoint.pages import release_pages

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: `offset` and `nbytes` are absolute in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """A mapped safetensors file; `dtypes` are those that are read, by the format's names.

    Raises:
        InputError: the file is missing, truncated, malformed or holds an unsupported dtype.
    """

    def __init__(self, path: Path, dtypes: Mapping[str, np.dtype[Any]] = DTYPES) -> None:
        self.path = path
        found = stored_tensors(path, {name: dtype.itemsize for name, dtype in dtypes.items()})
        self.entries = {
            name: TensorEntry(dtypes[item.dtype], item.shape, item.offset, item.nbytes)
            for name, item in found.items()
        }
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    def tensor(self, name: str) -> np.ndarray:
        """A read-only view of the tensor's bytes in their stored dtype; nothing is copied."""
        entry = self.entries[name]
        count = entry.nbytes // entry.dtype.itemsize
        return np.frombuffer(self._map, entry.dtype, count, entry.offset).reshape(entry.shape)

    def release(self, name: str, begin: int = 0, end: int | None = None) -> None:
        """Give the tensor's pages (bytes `begin` to `end`) back: peak memory stays flat."""
        entry = self.entries[name]
        stop = entry.nbytes if end is None else end
        release_pages(self._map, entry.offset + begin, entry.offset + stop)
