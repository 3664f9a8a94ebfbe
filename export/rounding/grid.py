"""What a weight can be stored on: the values that codes, scales and offsets of a block can express.

A grid is data. A storage type of a format states its own; methods read it and have no branches over
formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np

WHOLE_ROW = 0
POWERS_OF_TWO = np.dtype(ml_dtypes.float8_e8m0fnu)


class Kind(Enum):
    """What a code stands for."""

    CENTRED = "scale × code; codes are signed"
    SIGNED = "scale × (code − zero); the scale may be negative"
    ZERO_POINT = "scale × (code − zero point); a zero point for each block"
    MINIMUM = "scale × code + minimum; a minimum for each block"
    CODEBOOK = "scale × level of the code"


class Rules(Enum):
    """Whose arithmetic the method `nearest` repeats: the one with which users' files are made."""

    GGML = "ggml"
    MLAS = "ONNX Runtime's MLAS"
    ONNXRUNTIME = "the Python package onnxruntime.quantization"
    MLC = "mlc_llm"
    MLX = "mlx.core"
    BITSANDBYTES = "bitsandbytes"


class BlockAxis(Enum):
    """Along what the values of a block follow each other."""

    INPUT = "the inputs of one row"
    FLAT = "the whole matrix, row after row"


@dataclass(frozen=True)
class Grid:
    """The values that a matrix [out, in] can be stored as.

    Args:
        kind: what a code stands for.
        bits: of a code.
        block: how many values share a scale; `WHOLE_ROW` for those of an output channel.
        scale_dtype: of scales and minima, as they are stored; `POWERS_OF_TWO` where a scale is its
            exponent, a byte (2⁻¹²⁷ … 2¹²⁷, above 0).
        rules: whose arithmetic `nearest` repeats.
        zero: the code of the value 0, where that is fixed and codes are unsigned.
        axis: along what the values of a block lie.
        levels: of a codebook, ascending, one for each code.
    """

    kind: Kind
    bits: int
    block: int
    scale_dtype: np.dtype[Any]
    rules: Rules
    zero: int = 0
    axis: BlockAxis = BlockAxis.INPUT
    levels: tuple[float, ...] = ()

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.kind is Kind.CENTRED else 0

    @property
    def highest(self) -> int:
        """The greatest code."""
        return self.lowest + (1 << self.bits) - 1

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """Of codes before they are packed: int8 or uint8."""
        return np.dtype(np.int8 if self.kind is Kind.CENTRED else np.uint8)

    @property
    def has_zero_points(self) -> bool:
        """Whether each block has a zero point."""
        return self.kind is Kind.ZERO_POINT

    def blocks(self, columns: int) -> int:
        """Blocks of a row on `BlockAxis.INPUT`; the last one may be padded."""
        return -(-columns // self.block) if self.block else 1
