"""Serialise a GGUF version 3 header, little endian: metadata and the place of every tensor.

Invariant: the header ends at a multiple of `ALIGNMENT`, where the tensors begin, each padded to it.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError

ALIGNMENT = 32
MAGIC = b"GGUF"
VERSION = 3
ARRAY = 9


@dataclass(frozen=True)
class ValueType:
    """A metadata value type: its id in the file and how one value is encoded."""

    type_id: int
    encode: Callable[[Any], bytes]


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return len(data).to_bytes(8, "little") + data


def _float32(value: float) -> bytes:
    data = struct.pack("<f", value)
    if value and not struct.unpack("<f", data)[0]:
        raise OverflowError  # llama.cpp takes zero for its own default
    return data


UINT16 = ValueType(2, struct.Struct("<H").pack)
UINT32 = ValueType(4, struct.Struct("<I").pack)
INT32 = ValueType(5, struct.Struct("<i").pack)
FLOAT32 = ValueType(6, _float32)
BOOL = ValueType(7, struct.Struct("<?").pack)
STRING = ValueType(8, _string)


@dataclass(frozen=True)
class MetadataEntry:
    """One metadata entry. A list is stored as an array of `type`."""

    key: str
    type: ValueType
    value: Any

    def encode(self) -> bytes:
        """Key, type and value.

        Raises:
            InputError: a number that the type cannot hold.
        """
        try:
            return self._encoded()
        except (struct.error, OverflowError):
            raise InputError(f"{self.key}: GGUF cannot hold the value {self.value!r}") from None

    def _encoded(self) -> bytes:
        encode = self.type.encode
        if isinstance(self.value, list):
            kind = struct.pack("<IIQ", ARRAY, self.type.type_id, len(self.value))
            return _string(self.key) + kind + b"".join(map(encode, self.value))
        return _string(self.key) + struct.pack("<I", self.type.type_id) + encode(self.value)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor to be stored: `shape` is [rows, …, row], as in NumPy."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    nbytes: int


def encode_header(metadata: Sequence[MetadataEntry], tensors: Sequence[TensorInfo]) -> bytes:
    """Everything before the first tensor's bytes; tensors follow in this order."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    parts += [entry.encode() for entry in metadata]
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]  # the file lists the fastest axis first
        parts.append(_string(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        parts.append(struct.pack("<IQ", tensor.type_id, offset))
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT)
