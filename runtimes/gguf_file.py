"""The metadata and tensors of a GGUF file. gguf-py's reader takes six seconds for a vocabulary.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from edgeproof.errors import InputError

T = TypeVar("T")
MAGIC, VERSIONS = b"GGUF", (2, 3)
HEADER = struct.Struct("<4sIQQ")  # magic, version, tensors, keys
# Type of a value → how `struct` reads it.
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
STRING, ARRAY = 8, 9
# What reading a damaged or hostile file may raise.
MALFORMED = (
    OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error,
)  # fmt: skip


# Tensors begin at multiples of it, unless `general.alignment` says another.
ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor:
    """One tensor; `shape` in NumPy's order of axes, `stored` with a row's bytes as the last one."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    path: Path
    begin: int

    @property
    def nbytes(self) -> int:
        """What it takes in the file."""
        return math.prod(self.stored)

    @property
    def data(self) -> np.ndarray:
        """Its bytes, uint8 `stored`: mapped anew, so that no pages stay in memory after use."""
        if not self.nbytes:
            return np.empty(self.stored, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.begin, self.stored)


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key with its value: numbers, text, lists of these.

    Raises:
        InputError: it cannot be read, or is no GGUF file of a known version.
    """
    return _read(path, lambda cursor, metadata, _: metadata)


def read_file(path: Path) -> tuple[dict[str, Any], list[GgufTensor]]:
    """Every key with its value, and every tensor in the file's order.

    Raises:
        InputError: as `read_metadata`; also for an unknown type, a row that is no whole number of
            blocks, and bytes outside the file.
    """
    return _read(
        path, lambda cursor, metadata, count: (metadata, _tensors(path, cursor, metadata, count))
    )


def _read(path: Path, rest: Callable[[_Cursor, dict[str, Any], int], T]) -> T:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            magic, version, tensors, count = HEADER.unpack_from(data)
            if magic != MAGIC or version not in VERSIONS:
                raise ValueError(f"it begins with {magic!r}, version {version}")
            cursor = _Cursor(data, HEADER.size)
            return rest(cursor, cursor.keys(count), tensors)
    except MALFORMED as error:
        raise InputError(f"{path}: cannot be read as a GGUF file ({error})") from None


def _tensors(path: Path, cursor: _Cursor, metadata: dict[str, Any], count: int) -> list[GgufTensor]:
    entries = [cursor.tensor() for _ in range(count)]
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    begin = -(-cursor.place // alignment) * alignment
    size = path.stat().st_size
    found = []
    for name, sizes, number, offset in entries:
        kind, shape = GGMLQuantizationType(number), (*reversed(sizes),)
        block, width = GGML_QUANT_SIZES[kind]
        if shape[-1] % block:
            raise ValueError(f"{name}: rows of {shape[-1]} values in blocks of {block}")
        stored = (*shape[:-1], shape[-1] // block * width)
        start, length = begin + offset, math.prod(stored)
        if start + length > size:
            raise ValueError(f"{name}: {length} bytes from byte {start} on, beyond the file's end")
        found.append(GgufTensor(name, kind, shape, stored, path, start))
    return found


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap, place: int) -> None:
        self._data, self.place = data, place

    def keys(self, count: int) -> dict[str, Any]:
        """The next `count` keys with their values."""
        found = {}
        for _ in range(count):
            key = self._text()
            found[key] = self._value(self._number("I"))
        return found

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, sizes (the innermost first), type and offset of the next tensor."""
        name, axes = self._text(), self._number("I")
        return name, self._take(f"<{axes}Q"), self._number("I"), self._number("Q")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._number(SCALARS[kind])
        kind, count = self._number("I"), self._number("Q")
        if kind in (STRING, ARRAY):
            return [self._value(kind) for _ in range(count)]
        return list(self._take(f"<{count}{SCALARS[kind]}"))

    def _number(self, code: str) -> Any:
        return self._take(f"<{code}")[0]

    def _text(self) -> str:
        size = self._number("Q")
        return bytes(self._take(f"<{size}s")[0]).decode(errors="replace")

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self.place)
        self.place += struct.calcsize(layout)
        return values
