"""Tensors of a safetensors file, memory-mapped, in any dtype that NumPy and ml_dtypes have.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json

DTYPES: dict[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "U32": np.uint32,
    "U8": np.uint8,
}
LARGEST_HEADER = 100_000_000  # the reference library's limit
LENGTH = 8


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
        InputError: it cannot be read, is cut off, or its header is malformed.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            begin = file.read(LENGTH)
            length = struct.unpack("<Q", begin)[0] if len(begin) == LENGTH else LARGEST_HEADER
            if length > min(LARGEST_HEADER, size - LENGTH):
                raise InputError(f"{path}: cut off, or no safetensors file; export the model again")
            header = parse_json(file.read(length).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: malformed header ({error}); export the model again") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: malformed header; export the model again")
    header.pop("__metadata__", None)
    return {
        str(name): _entry(path, str(name), item, LENGTH + length, size)
        for name, item in header.items()
    }


def _entry(path: Path, name: str, item: Any, base: int, size: int) -> Entry:
    try:
        dtype, shape = item["dtype"], tuple(int(number) for number in item["shape"])
        begin, end = (int(number) for number in item["data_offsets"])
        width = np.dtype(DTYPES[dtype]).itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: tensor {name} has a malformed entry ({error!r}); export the model again"
        ) from None
    fits = min(shape, default=0) >= 0 and math.prod(shape) * width == end - begin
    if not fits or not 0 <= begin <= end <= size - base:
        raise InputError(f"{path}: tensor {name} is not where the header says it is, or cut off")
    return Entry(path, dtype, shape, base + begin, end - begin)


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
