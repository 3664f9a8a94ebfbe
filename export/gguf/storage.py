"""GGUF storage types: how rows of a tensor become bytes.

A new type is one more entry in `TYPES`: its numbers and, for a block type, the grid that its values
lie on and the parts of a block's bytes in order. Grouping, shapes and the fit of rows live here,
once; how values get their codes is the method's business. `LAYOUTS` also
has the types whose values only llama.cpp itself rounds.
Numbers: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.recovery import IQ4_NL_LEVELS
from export.rounding import Grid, Kind, Rounded, Rounder, Rules
from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32, cast
from export.targets import Target

# Some bytes of every block, uint8 [n, bytes], from n rounded blocks.
Part = Callable[[Rounded], np.ndarray]
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
    def encode(self, rows: np.ndarray, target: Target, rounder: Rounder) -> np.ndarray:
        """Stored bytes of whole rows [..., row] of the target in a float type: contiguous uint8.

        Raises:
            InputError: a value or scale overflows the type; the message names the tensor.
        """


@dataclass(frozen=True)
class FloatType(StorageType):
    """Plain floats."""

    dtype: np.dtype[Any]

    def encode(self, rows: np.ndarray, target: Target, rounder: Rounder) -> np.ndarray:
        """See `StorageType.encode`."""
        return cast(rows, self.dtype, target.origin).reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class BlockType(StorageType):
    """Blocks of consecutive values of a row: the parts of each, in order, are its bytes."""

    grid: Grid
    parts: tuple[Part, ...]

    def encode(self, rows: np.ndarray, target: Target, rounder: Rounder) -> np.ndarray:
        """See `StorageType.encode`."""
        out = np.empty((self.nbytes(rows.shape) // self.block_bytes, self.block_bytes), np.uint8)
        lines = rows.reshape(-1, rows.shape[-1])
        blocks = lines.shape[1] // self.block_size
        step = max(1, GROUP_BLOCKS // blocks)
        for start in range(0, len(lines), step):
            rounded = rounder.round(lines[start : start + step], self.grid, target)
            self._pack(rounded, out[start * blocks : (start + step) * blocks])
        return out.reshape(-1)

    def _pack(self, rounded: Rounded, out: np.ndarray) -> None:
        """Fill `out`, uint8 [n, block_bytes]."""
        end = 0
        for part in self.parts:
            piece = part(rounded)
            start, end = end, end + piece.shape[1]
            out[:, start:end] = piece


def _scale(rounded: Rounded) -> np.ndarray:
    return _bytes(rounded.scales)


def _minimum(rounded: Rounded) -> np.ndarray:
    return _bytes(rounded.offsets)


def _whole_bytes(rounded: Rounded) -> np.ndarray:
    return np.asarray(rounded.codes.view(np.uint8).T)


def _bytes(halves: np.ndarray) -> np.ndarray:
    """float16 [n] → uint8 [n, 2]."""
    return halves.view(np.uint8).reshape(-1, 2)


def _nibble_pairs(rounded: Rounded) -> np.ndarray:
    """Low 4 bits of codes [32, n] → uint8 [n, 16]: byte i holds value i low, i + 16 high."""
    codes = rounded.codes
    return np.asarray(((codes[:16] & np.uint8(15)) | (codes[16:] << np.uint8(4))).T)


def _fifth_bits(rounded: Rounded) -> np.ndarray:
    """Bit 4 of codes [32, n] → uint8 [n, 4]: bit i of the 32 is value i's."""
    return np.asarray(np.packbits(rounded.codes >> np.uint8(4), axis=0, bitorder="little").T)


def _grid(kind: Kind, bits: int, zero: int = 0) -> Grid:
    return Grid(kind, bits, 32, FLOAT16, Rules.GGML, zero)


EIGHT_BITS = _grid(Kind.CENTRED, 8)
FIVE_BITS, FIVE_BITS_UP = _grid(Kind.SIGNED, 5, zero=16), _grid(Kind.MINIMUM, 5)
FOUR_BITS, FOUR_BITS_UP = _grid(Kind.SIGNED, 4, zero=8), _grid(Kind.MINIMUM, 4)
FOUR_BITS_NON_LINEAR = replace(_grid(Kind.CODEBOOK, 4), levels=IQ4_NL_LEVELS)
TYPES: dict[str, StorageType] = {
    entry.name: entry
    for entry in (
        FloatType("F32", 0, 1, 4, 0, FLOAT32),
        FloatType("F16", 1, 1, 2, 1, FLOAT16),
        FloatType("BF16", 30, 1, 2, 32, BFLOAT16),
        BlockType("Q8_0", 8, 32, 34, 7, EIGHT_BITS, (_scale, _whole_bytes)),
        BlockType("Q5_0", 6, 32, 22, 8, FIVE_BITS, (_scale, _fifth_bits, _nibble_pairs)),
        BlockType(
            "Q5_1", 7, 32, 24, 9, FIVE_BITS_UP, (_scale, _minimum, _fifth_bits, _nibble_pairs)
        ),
        BlockType("Q4_0", 2, 32, 18, 2, FOUR_BITS, (_scale, _nibble_pairs)),
        BlockType("Q4_1", 3, 32, 20, 3, FOUR_BITS_UP, (_scale, _minimum, _nibble_pairs)),
        BlockType("IQ4_NL", 20, 32, 18, 25, FOUR_BITS_NON_LINEAR, (_scale, _nibble_pairs)),
    )
}
# Written here only where a method of ours gives the codes: `nearest` is llama.cpp's own for it.
FOREIGN = ("IQ4_NL",)
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
            Layout("IQ4_XS", 23, 256, 136),
        )
    },
}
