"""One safetensors file as read-only memory-mapped arrays.

Invariant: every byte range is validated against the file before any array is made, so a truncated
or hostile header is an `InputError` and never a crash. Layout: 8-byte little-endian header length,
JSON header, then one contiguous data section (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json
from export.checkpoint.pages import release_pages

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# The format's own limit; it also bounds what a hostile file can make us parse.
MAX_HEADER_BYTES = 100_000_000
LFS_POINTER = b"version "  # https://git-lfs.com/spec/v1


class DtypeError(InputError):
    """A tensor of a dtype that is not read."""


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
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                self.entries = _read_header(path, file, size, dtypes)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
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


def _read_header(
    path: Path, file: Any, size: int, dtypes: Mapping[str, np.dtype[Any]]
) -> dict[str, TensorEntry]:
    file.seek(0)
    prefix = file.read(8)
    if len(prefix) < 8:
        raise InputError(f"{path}: truncated safetensors file ({size} bytes); download it again")
    if prefix == LFS_POINTER:
        raise InputError(
            f"{path}: a pointer of Git LFS, not the weights; fetch them (git lfs pull) or download"
            " the model again"
        )
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise InputError(
            f"{path}: truncated or no safetensors file: its header claims {length} of {size} bytes"
        )
    try:
        header = parse_json(file.read(length))
        header.pop("__metadata__", None)
        entries = {
            name: _entry(path, name, spec, 8 + length, dtypes) for name, spec in header.items()
        }
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        raise InputError(f"{path}: malformed safetensors header; download the file again") from None
    _check_layout(path, entries, 8 + length, size)
    return entries


def _entry(
    path: Path, name: str, spec: dict[str, Any], base: int, dtypes: Mapping[str, np.dtype[Any]]
) -> TensorEntry:
    dtype = dtypes.get(spec["dtype"])
    if dtype is None:
        raise DtypeError(
            f"{path}: tensor {name} has dtype {spec['dtype']}; supported are {', '.join(dtypes)}"
        )
    begin, end = (int(value) for value in spec["data_offsets"])
    shape = tuple(int(value) for value in spec["shape"])
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != end - begin or begin < 0:
        raise InputError(f"{path}: tensor {name} has shape {list(shape)} but {end - begin} bytes")
    return TensorEntry(dtype, shape, base + begin, end - begin)


def _check_layout(path: Path, entries: dict[str, TensorEntry], base: int, size: int) -> None:
    expected = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.offset != expected:
            raise InputError(
                f"{path}: tensor {name} overlaps another or leaves a gap; file damaged"
            )
        expected += entry.nbytes
        if expected > size:
            raise InputError(
                f"{path}: truncated: tensor {name} ends at byte {expected}, the file has {size};"
                " download it again"
            )
