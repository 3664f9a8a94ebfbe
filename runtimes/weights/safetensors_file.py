"""Tensors of a safetensors file, memory-mapped, in any dtype that NumPy and ml_dtypes have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError
from edgeproof.files.safetensors import stored_tensors

DTYPES: dict[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "U32": np.uint32,
    "U8": np.uint8,
}


@dataclass(frozen=True)
class Entry:
    """One tensor as the header states it; `begin` counts from the file's first byte."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int

    def read(self) -> np.ndarray:
        """Its values, a view of the mapped file."""
        data = np.memmap(self.path, np.uint8, "r", self.begin, (self.nbytes,))
        return np.asarray(data.view(DTYPES[self.dtype]).reshape(self.shape))


def entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file by name.

    Raises:
        InputError: as `stored_tensors`.
    """
    widths = {name: np.dtype(dtype).itemsize for name, dtype in DTYPES.items()}
    return {
        name: Entry(path, item.dtype, item.shape, item.offset, item.nbytes)
        for name, item in stored_tensors(path, widths).items()
    }


def all_entries(paths: Iterable[Path]) -> dict[str, Entry]:
    """The tensors of several files.

    Raises:
        InputError: as `entries`, or two files have a tensor of one name.
    """
    found: dict[str, Entry] = {}
    for path in paths:
        for name, entry in entries(path).items():
            if name in found:
                raise InputError(f"{path}: tensor {name} is also in {found[name].path.name}")
            found[name] = entry
    return found
