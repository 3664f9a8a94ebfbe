"""Rounding in blocks along the input axis, as ONNX Runtime's MatMulNBits stores weights.

Invariant: bit for bit what ONNX Runtime's own quantiser gives (MLAS, `BlockwiseQuantizer` in
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/mlas/lib/q4_dq.cpp), for every
block of finite values whose scale is a normal number of its type; codes are chosen for the scale as
it is stored. Arithmetic is float32, as in C.
"""

from __future__ import annotations

import numpy as np

from export.rounding.cast import FLOAT32, cast
from export.rounding.grid import Grid
from export.rounding.method import Rounded, lanes

# The float32 before 0.5: adding it and truncating rounds half away from zero, without the error
# that 0.5 makes at 0.49999997.
BELOW_HALF = np.float32(0.49999997)


def symmetric(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """The value of largest magnitude gets code 0, whatever its sign.

    Raises:
        InputError: a scale overflows float16.
    """
    values = lanes(rows, grid)
    highest, lowest = values.max(axis=0), values.min(axis=0)
    peak = np.where(np.abs(highest) > np.abs(lowest), highest, lowest)
    zero = np.float32(grid.zero)
    scales = _stored(-peak / zero, grid, name)
    return Rounded(_codes(values, scales, zero, grid), scales)


def asymmetric(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """Codes from the block's minimum to its maximum; the range is widened to contain 0.

    Errors as `symmetric`.
    """
    values = lanes(rows, grid)
    highest = np.maximum(values.max(axis=0), np.float32(0))
    lowest = np.minimum(values.min(axis=0), np.float32(0))
    top = np.float32(grid.highest)
    exact = (highest - lowest) / top
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(exact != 0, np.float32(0) - lowest / exact, np.float32(0))
    zeros = np.trunc(np.clip(zero, 0, top) + BELOW_HALF)
    scales = _stored(exact, grid, name)
    return Rounded(_codes(values, scales, zeros, grid), scales, zeros.astype(np.uint8))


def _stored(scales: np.ndarray, grid: Grid, name: str) -> np.ndarray:
    """Scales as they are stored; + 0 makes the -0 of a block of zeros +0."""
    return cast(scales + np.float32(0), grid.scale_dtype, f"{name}, scale of a block")


def _codes(
    values: np.ndarray, scales: np.ndarray, zeros: np.ndarray | np.float32, grid: Grid
) -> np.ndarray:
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.reciprocal(scales.astype(FLOAT32))
    values *= np.where(np.isfinite(inverse), inverse, np.float32(0))
    values += zeros
    values += BELOW_HALF
    np.clip(values, np.float32(0), np.float32(grid.highest), out=values)
    return values.astype(np.uint8)
