"""Rounding in blocks along the input axis, as ONNX Runtime's MatMulNBits stores weights.

Invariant: bit for bit what ONNX Runtime's own quantiser gives (MLAS, `BlockwiseQuantizer` in
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/mlas/lib/q4_dq.cpp), for every
block of finite values whose scale is a normal number of its type. How codes are packed into bytes
is the format's business.

A group of n blocks is passed as lanes [block, n], value i of every block in row i: each step is
then one long vector operation. The lanes are scratch space and are overwritten. Arithmetic is
float32, as in C.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.quantization.cast import FLOAT32, cast

# The float32 before 0.5: adding it and truncating rounds half away from zero, without the error
# that 0.5 makes at 0.49999997.
BELOW_HALF = np.float32(0.49999997)


def symmetric(
    lanes: np.ndarray, bits: int, scale_dtype: np.dtype[Any], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Round to value ≈ scale × (code − 2^(bits − 1)); the value of largest magnitude gets code 0.

    Args:
        lanes: float32 [block, n], finite; overwritten.
        bits: of a code, at most 8.
        scale_dtype: float32 or float16, of the stored scales; codes are chosen for these.
        name: the tensor's name, for errors.

    Returns:
        scales of `scale_dtype` [n], codes uint8 [block, n] from 0 to 2^bits − 1.

    Raises:
        InputError: a scale overflows float16.
    """
    highest, lowest = lanes.max(axis=0), lanes.min(axis=0)
    peak = np.where(np.abs(highest) > np.abs(lowest), highest, lowest)
    middle = 1 << (bits - 1)
    scales = _stored(-peak / np.float32(middle), scale_dtype, name)
    return scales, _codes(lanes, scales, np.float32(middle), bits)


def asymmetric(
    lanes: np.ndarray, bits: int, scale_dtype: np.dtype[Any], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round to value ≈ scale × (code − zero point); the range is widened to contain 0.

    Args and errors as `symmetric`.

    Returns:
        scales of `scale_dtype` [n], zero points uint8 [n], codes uint8 [block, n].
    """
    highest = np.maximum(lanes.max(axis=0), np.float32(0))
    lowest = np.minimum(lanes.min(axis=0), np.float32(0))
    top = np.float32((1 << bits) - 1)
    exact = (highest - lowest) / top
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(exact != 0, np.float32(0) - lowest / exact, np.float32(0))
    zeros = np.trunc(np.clip(zero, 0, top) + BELOW_HALF)
    scales = _stored(exact, scale_dtype, name)
    return scales, zeros.astype(np.uint8), _codes(lanes, scales, zeros, bits)


def _stored(scales: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    """Scales as they are stored; + 0 makes the -0 of a block of zeros +0."""
    return cast(scales + np.float32(0), dtype, f"{name}, scale of a block")


def _codes(
    lanes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | np.float32, bits: int
) -> np.ndarray:
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.reciprocal(scales.astype(FLOAT32))
    lanes *= np.where(np.isfinite(inverse), inverse, np.float32(0))
    lanes += zeros
    lanes += BELOW_HALF
    np.clip(lanes, np.float32(0), np.float32((1 << bits) - 1), out=lanes)
    return lanes.astype(np.uint8)
