"""Read a GGUF container: typed metadata and the raw bytes of tensors.

Invariant: every length and offset is checked against the file before it is used, so a truncated or
hostile file is an `InputError` and never a crash. Layout, little-endian: magic, version, counts,
key/value pairs, tensor descriptions, padding, tensor data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.checkpoint.pages import release_pages
from export.sources.gguf_metadata import Metadata
from export.sources.gguf_types import Storage, storage

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
# Far above any vocabulary; bounds the memory that a hostile file can make us use.
MAX_STRINGS = 4_000_000
SCALARS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: how it is stored, its shape (outermost axis first) and its absolute place."""

    name: str
    storage: Storage
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (the innermost axis)."""
        return self.shape[-1] // self.storage.block * self.storage.block_bytes

    @property
    def rows(self) -> int:
        """Number of rows; a vector is one row."""
        return math.prod(self.shape[:-1])


class GgufFile:
    """A mapped GGUF file; with `split`, it may be a part of a model.

    Raises:
        InputError: unreadable, not GGUF, truncated, malformed, split, or a type that cannot be
            dequantised.
    """

    def __init__(self, path: Path, *, split: bool = False) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise InputError(f"{path}: not a GGUF file (it does not begin with 'GGUF')")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        cursor = _Cursor(path, self._map)
        tensor_count, pairs = _read_preamble(cursor)
        self.metadata = Metadata(path, _read_pairs(cursor, pairs))
        count = self.metadata.integer("split.count", 1)
        if count > 1 and not split:
            raise InputError(
                f"{path}: one part of a split model; name the parts NAME-00001-of-{count:05}.gguf"
                " and so on, or join them (gguf-split --merge)"
            )
        described = [_read_description(cursor) for _ in range(tensor_count)]
        self.tensors = self._place(cursor.position, described)

    def raw_rows(self, tensor: GgufTensor) -> np.ndarray:
        """The stored bytes, uint8 [rows, row_bytes]: a read-only view, nothing is copied."""
        size = tensor.rows * tensor.row_bytes
        flat = np.frombuffer(self._map, np.uint8, size, tensor.offset)
        return flat.reshape(tensor.rows, tensor.row_bytes)

    def release(self, tensor: GgufTensor) -> None:
        """Give a tensor's pages back: peak memory stays flat."""
        release_pages(self._map, tensor.offset, tensor.offset + tensor.rows * tensor.row_bytes)

    def _place(self, end: int, described: list[GgufTensor]) -> dict[str, GgufTensor]:
        alignment = self.metadata.integer("general.alignment", DEFAULT_ALIGNMENT)
        if alignment < 1 or alignment & (alignment - 1):
            raise InputError(f"{self.path}: general.alignment {alignment} is not a power of two")
        base = end + -end % alignment
        placed: dict[str, GgufTensor] = {}
        for tensor in described:
            if tensor.name in placed:
                raise InputError(f"{self.path}: tensor {tensor.name} appears twice; damaged file")
            offset = base + tensor.offset
            stop = offset + tensor.rows * tensor.row_bytes
            if stop > len(self._map):
                raise InputError(
                    f"{self.path}: truncated: tensor {tensor.name} ends at byte {stop},"
                    f" the file has {len(self._map)}; download it again"
                )
            placed[tensor.name] = GgufTensor(tensor.name, tensor.storage, tensor.shape, offset)
        return placed


class _Cursor:
    """A read position that cannot leave the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.position = 0
        self._data = data

    def take(self, count: int) -> int:
        """Advance and return where the `count` bytes begin."""
        begin = self.position
        if count > len(self._data) - begin:
            raise InputError(
                f"{self.path}: truncated GGUF header ({len(self._data)} bytes); download it again"
            )
        self.position += count
        return begin

    def u32(self) -> int:
        return int(struct.unpack_from("<I", self._data, self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack_from("<Q", self._data, self.take(8))[0])

    def text(self) -> str:
        length = self.u64()
        begin = self.take(length)
        try:
            return self._data[begin : begin + length].decode()
        except UnicodeDecodeError:
            raise InputError(f"{self.path}: malformed text at byte {begin}") from None

    def scalars(self, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """`count` values as a read-only view."""
        return np.frombuffer(self._data, dtype, count, self.take(count * dtype.itemsize))


def _read_preamble(cursor: _Cursor) -> tuple[int, int]:
    cursor.take(len(MAGIC))
    version = cursor.u32()
    if version not in VERSIONS:
        kind = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
        raise InputError(f"{cursor.path}: {kind} GGUF is not supported; convert the model again")
    return cursor.u64(), cursor.u64()


def _read_pairs(cursor: _Cursor, count: int) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text()
        if key in pairs:
            raise InputError(f"{cursor.path}: metadata key {key} appears twice; damaged file")
        pairs[key] = _read_value(cursor, key)
    return pairs


def _read_value(cursor: _Cursor, key: str) -> Any:
    kind = cursor.u32()
    if kind == STRING:
        return cursor.text()
    if kind == ARRAY:
        return _read_array(cursor, key)
    return cursor.scalars(_scalar(cursor, key, kind), 1)[0].item()


def _read_array(cursor: _Cursor, key: str) -> list[str] | np.ndarray:
    kind, count = cursor.u32(), cursor.u64()
    if kind == STRING:
        if count > MAX_STRINGS:
            raise InputError(f"{cursor.path}: metadata {key} claims {count} strings; damaged file")
        return [cursor.text() for _ in range(count)]
    return cursor.scalars(_scalar(cursor, key, kind), count)


def _scalar(cursor: _Cursor, key: str, kind: int) -> np.dtype[Any]:
    if kind not in SCALARS:
        raise InputError(f"{cursor.path}: metadata {key} has the unknown type {kind}; damaged file")
    return SCALARS[kind]


def _read_description(cursor: _Cursor) -> GgufTensor:
    """A tensor as described; its offset is still relative to the data section."""
    name, dimensions = cursor.text(), cursor.u32()
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InputError(f"{cursor.path}: tensor {name} has {dimensions} dimensions; damaged file")
    shape = tuple(cursor.u64() for _ in range(dimensions))[::-1]
    kind = storage(cursor.u32(), f"{cursor.path}: tensor {name}")
    if shape[-1] % kind.block or min(shape) < 1:
        raise InputError(
            f"{cursor.path}: tensor {name} of shape {list(shape)} cannot be {kind.name}"
            f" (blocks of {kind.block}); damaged file"
        )
    return GgufTensor(name, kind, shape, cursor.u64())
