"""The metadata of a GGUF file. gguf-py's reader, which also reads tensors, takes seconds for it.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from export.errors import InputError

MAGIC, VERSIONS = b"GGUF", (2, 3)
HEADER = struct.Struct("<4sIQQ")  # magic, version, tensors, keys
# Type of a value → how `struct` reads it.
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
STRING, ARRAY = 8, 9


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key with its value: numbers, text, lists of these.

    Raises:
        InputError: it cannot be read, or is no GGUF file of a known version.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            magic, version, _, count = HEADER.unpack_from(data)
            if magic != MAGIC or version not in VERSIONS:
                raise ValueError(f"it begins with {magic!r}, version {version}")
            return _Cursor(data, HEADER.size).keys(count)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise InputError(f"{path}: cannot be read as a GGUF file ({error})") from None


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap, place: int) -> None:
        self._data, self._place = data, place

    def keys(self, count: int) -> dict[str, Any]:
        found = {}
        for _ in range(count):
            key = self._text()
            found[key] = self._value(self._number("I"))
        return found

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
        values = struct.unpack_from(layout, self._data, self._place)
        self._place += struct.calcsize(layout)
        return values
