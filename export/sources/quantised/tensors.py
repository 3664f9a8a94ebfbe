"""The stored tensors of a quantised checkpoint: by name, checked, memory-mapped.

Invariant: whatever is refused names the file and the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError
from export.checkpoint.safetensors_file import DTYPES, SafetensorsFile

FLOATS = tuple(DTYPES.values())
INT32, UINT8, INT8 = np.dtype("<i4"), np.dtype(np.uint8), np.dtype(np.int8)
INT64 = np.dtype("<i8")
FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
# What the readers understand beside floats, by safetensors' names.
STORED: dict[str, np.dtype[Any]] = {
    **DTYPES,
    "I32": INT32,
    "I64": INT64,
    "I8": INT8,
    "U8": UINT8,
    "F8_E4M3": FLOAT8,
}


class Tensors:
    """All tensors of the files that count."""

    def __init__(self, files: Sequence[SafetensorsFile]) -> None:
        self._where: dict[str, SafetensorsFile] = {}
        for file in files:
            for name in file.entries:
                if name in self._where:
                    other = self._where[name].path.name
                    raise InputError(f"{file.path}: tensor {name} is also in {other}")
                self._where[name] = file

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def dtype(self, name: str) -> np.dtype[Any]:
        """As it is stored."""
        return self._where[name].entries[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """As it is stored."""
        return self._where[name].entries[name].shape

    def array(self, name: str) -> np.ndarray:
        """A view of the file; nothing is copied."""
        return self._where[name].tensor(name)

    def release(self, names: Sequence[str]) -> None:
        """Give the pages of these tensors back; they can still be read."""
        for name in names:
            self._where[name].release(name)

    def wrong(self, name: str, what: str) -> InputError:
        """The refusal of a tensor."""
        return InputError(f"{self._where[name].path}: tensor {name} {what}")

    def require(
        self, name: str, beside: str, dtypes: Sequence[np.dtype[Any]], *shapes: tuple[int, ...]
    ) -> str:
        """The name of a tensor that is there, of such a dtype and one of these shapes, if any.

        Args:
            name: what is needed.
            beside: a tensor that is there and needs it: its file is named.
            dtypes: which of them it may have.
            shapes: which it may have; without any, whatever it has.

        Raises:
            InputError: it is not.
        """
        if name not in self._where:
            raise self.wrong(beside, f"is quantised, but {name} is missing")
        if self.dtype(name) not in dtypes:
            wanted = " or ".join(dtype.name for dtype in dtypes)
            raise self.wrong(name, f"has dtype {self.dtype(name).name}, expected {wanted}")
        if shapes and self.shape(name) not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise self.wrong(name, f"has shape {list(self.shape(name))}, expected {wanted}")
        return name

    def scales(
        self, name: str, beside: str, *shapes: tuple[int, ...], dtypes: Sequence[Any] = FLOATS
    ) -> str:
        """As `require`, for floats that have to be finite: they are read once, here.

        Raises:
            InputError: a value is NaN or infinite.
        """
        self.require(name, beside, dtypes, *shapes)
        finite = np.isfinite(self.array(name))
        self.release([name])
        if not finite.all():
            place = np.argwhere(~finite)[0].tolist()
            raise self.wrong(name, f"has a NaN or infinite value at {place}; the file is damaged")
        return name

    def size(self, name: str) -> int:
        """Number of its values."""
        return math.prod(self.shape(name))

    def folder(self) -> Path:
        """Where the files lie."""
        return next(iter(self._where.values())).path.parent
