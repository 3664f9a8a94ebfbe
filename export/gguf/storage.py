"""GGUF storage types: how rows of a tensor become bytes.

A new type is one more entry in `TYPES`: its numbers and, for a block type, a function that fills
the bytes of a group of blocks. Grouping, shapes and the fit of rows live here, once. `LAYOUTS` also
has the types whose values only llama.cpp itself rounds.
Numbers: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.quantization import ggml
from export.quantization.cast import BFLOAT16, FLOAT16, FLOAT32, cast

# Fills `out`, uint8 [n, block_bytes], from lanes, float32 [block_size, n]; `name` is for errors.
Pack = Callable[[np.ndarray, np.ndarray, str], None]
# Blocks per step: its temporaries stay in a 1 MiB L2 cache. Not a power of two, or the transposing
# copies would hit the same cache sets again and again.
GROUP_BLOCKS = 2000


@dataclass(frozen=True)
class Layout:
    """The numbers of one ggml type."""

    name: str
    type_id: int
    block_size: int
    block_bytes: int

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether rows of this shape divide into blocks."""
        return shape[-1] % self.block_size == 0

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Stored bytes of a tensor.

        Raises:
            InputError: its rows do not divide into blocks.
        """
        if not self.fits(shape):
            raise InputError(
                f"{self.name} stores blocks of {self.block_size} values;"
                f" rows of {shape[-1]} do not divide into them"
            )
        return math.prod(shape) // self.block_size * self.block_bytes


@dataclass(frozen=True)
class StorageType(Layout, ABC):
    """A type that is written here. `file_type` is `general.file_type` of a model mostly in it."""

    file_type: int

    @abstractmethod
    def encode(self, rows: np.ndarray, name: str) -> np.ndarray:
        """Stored bytes of whole rows [..., row] in a float type: contiguous uint8.

        Raises:
            InputError: a value or scale overflows the type; the message names the tensor.
        """


@dataclass(frozen=True)
class FloatType(StorageType):
    """Plain floats."""

    dtype: np.dtype[Any]

    def encode(self, rows: np.ndarray, name: str) -> np.ndarray:
        """See `StorageType.encode`."""
        return cast(rows, self.dtype, name).reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class BlockType(StorageType):
    """Blocks of consecutive values of a row, quantised one by one."""

    pack: Pack

    def encode(self, rows: np.ndarray, name: str) -> np.ndarray:
        """See `StorageType.encode`."""
        out = np.empty((self.nbytes(rows.shape) // self.block_bytes, self.block_bytes), np.uint8)
        blocks = rows.reshape(-1, self.block_size)
        for start in range(0, len(blocks), GROUP_BLOCKS):
            group = slice(start, start + GROUP_BLOCKS)
            lanes = blocks[group].T.astype(np.float32, order="C")  # [block_size, n]
            self.pack(lanes, out[group], name)
        return out.reshape(-1)


def _pack_q8_0(lanes: np.ndarray, out: np.ndarray, name: str) -> None:
    scale, codes = ggml.q8_0(lanes, name)
    out[:, 0:2] = _bytes(scale)
    out[:, 2:] = codes.view(np.uint8).T


def _pack_q4_0(lanes: np.ndarray, out: np.ndarray, name: str) -> None:
    scale, codes = ggml.q4_0(lanes, name)
    out[:, 0:2] = _bytes(scale)
    out[:, 2:] = _nibble_pairs(codes)


def _pack_q4_1(lanes: np.ndarray, out: np.ndarray, name: str) -> None:
    scale, minimum, codes = ggml.q4_1(lanes, name)
    out[:, 0:2] = _bytes(scale)
    out[:, 2:4] = _bytes(minimum)
    out[:, 4:] = _nibble_pairs(codes)


def _pack_q5_0(lanes: np.ndarray, out: np.ndarray, name: str) -> None:
    scale, codes = ggml.q5_0(lanes, name)
    out[:, 0:2] = _bytes(scale)
    out[:, 2:6] = _fifth_bits(codes)
    out[:, 6:] = _nibble_pairs(codes)


def _pack_q5_1(lanes: np.ndarray, out: np.ndarray, name: str) -> None:
    scale, minimum, codes = ggml.q5_1(lanes, name)
    out[:, 0:2] = _bytes(scale)
    out[:, 2:4] = _bytes(minimum)
    out[:, 4:8] = _fifth_bits(codes)
    out[:, 8:] = _nibble_pairs(codes)


def _bytes(halves: np.ndarray) -> np.ndarray:
    """float16 [n] → uint8 [n, 2]."""
    return halves.view(np.uint8).reshape(-1, 2)


def _nibble_pairs(codes: np.ndarray) -> np.ndarray:
    """Low 4 bits of codes [32, n] → uint8 [n, 16]: byte i holds value i low, i + 16 high."""
    return np.asarray(((codes[:16] & np.uint8(15)) | (codes[16:] << np.uint8(4))).T)


def _fifth_bits(codes: np.ndarray) -> np.ndarray:
    """Bit 4 of codes [32, n] → uint8 [n, 4]: bit i of the 32 is value i's."""
    return np.asarray(np.packbits(codes >> np.uint8(4), axis=0, bitorder="little").T)


TYPES: dict[str, StorageType] = {
    entry.name: entry
    for entry in (
        FloatType("F32", 0, 1, 4, 0, FLOAT32),
        FloatType("F16", 1, 1, 2, 1, FLOAT16),
        FloatType("BF16", 30, 1, 2, 32, BFLOAT16),
        BlockType("Q8_0", 8, 32, 34, 7, _pack_q8_0),
        BlockType("Q5_0", 6, 32, 22, 8, _pack_q5_0),
        BlockType("Q5_1", 7, 32, 24, 9, _pack_q5_1),
        BlockType("Q4_0", 2, 32, 18, 2, _pack_q4_0),
        BlockType("Q4_1", 3, 32, 20, 3, _pack_q4_1),
    )
}
# What a tensor is stored in when its rows do not divide into blocks, as in llama.cpp's converter.
FALLBACK = TYPES["F16"]
LAYOUTS: dict[str, Layout] = {
    **TYPES,
    **{
        entry.name: entry
        for entry in (
            Layout("Q6_K", 14, 256, 210),
            Layout("Q5_K", 13, 256, 176),
            Layout("Q4_K", 12, 256, 144),
            Layout("Q3_K", 11, 256, 110),
            Layout("Q2_K", 10, 256, 84),
            Layout("IQ4_NL", 20, 32, 18),
            Layout("IQ4_XS", 23, 256, 136),
        )
    },
}
