"""Rounding rules of ggml's 32-value block types: float32 blocks → codes, scales and minima.

Invariant: bit for bit what ggml's C reference gives on x86 (quantize_row_*_ref in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c), for every block of finite
values whose scale fits float16; others are refused. How codes are packed into bytes is the format's
business.

A group of n blocks is passed as lanes [32, n], value i of every block in row i: each step is then
one long vector operation. The lanes are scratch space and are overwritten. Arithmetic is float32
throughout, as in C.
"""

from __future__ import annotations

import numpy as np

from export.quantization.cast import FLOAT16, cast

BLOCK = 32
SIGN_BIT = np.uint32(0x80000000)
# The float32 before 0.5. Adding it with the value's sign and truncating rounds half away from zero,
# without the error that 0.5 makes at 0.49999997.
BELOW_HALF_BITS = np.float32(0.49999997).view(np.uint32)


def q8_0(lanes: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 8 bits: value ≈ scale × code, code in [-127, 127], halves away from zero.

    Args:
        lanes: float32 [32, n], finite; overwritten.
        name: the tensor's name, for errors.

    Returns:
        scales float16 [n], codes int8 [32, n].

    Raises:
        InputError: a scale overflows float16.
    """
    peak = np.abs(np.maximum(lanes.max(axis=0), -lanes.min(axis=0)))  # abs: never -0
    scale = peak / np.float32(127)
    lanes *= _reciprocal(scale)
    halves = lanes.view(np.uint32) & SIGN_BIT
    halves |= BELOW_HALF_BITS
    lanes += halves.view(np.float32)
    return _half(scale, name), lanes.astype(np.int8)


def q4_0(lanes: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Signed 4 bits: value ≈ scale × (code − 8); the value of largest magnitude gets code 0.

    Args and errors as `q8_0`.

    Returns:
        scales float16 [n], codes uint8 [32, n] in [0, 15].
    """
    return _signed(lanes, name, 8)


def q5_0(lanes: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Signed 5 bits: value ≈ scale × (code − 16), codes in [0, 31]; otherwise as `q4_0`."""
    return _signed(lanes, name, 16)


def q4_1(lanes: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affine 4 bits: value ≈ scale × code + minimum.

    Args and errors as `q8_0`; the minimum too must fit float16.

    Returns:
        scales float16 [n], minima float16 [n], codes uint8 [32, n] in [0, 15].
    """
    return _affine(lanes, name, 15)


def q5_1(lanes: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affine 5 bits: codes in [0, 31]; otherwise as `q4_1`."""
    return _affine(lanes, name, 31)


def _signed(lanes: np.ndarray, name: str, zero: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes 0 … 2 × zero − 1, `zero` stands for 0."""
    scale = _first_peak(lanes) / np.float32(-zero)
    inverse = _reciprocal(scale)
    # C turns a block whose 1/scale is infinite into zero codes; a block of zeros gets `zero`.
    offset = np.where((inverse == 0) & (scale != 0), np.float32(0), np.float32(zero + 0.5))
    lanes *= inverse
    lanes += offset
    return _half(scale, name), _codes(lanes, 2 * zero - 1)


def _affine(lanes: np.ndarray, name: str, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes 0 … top from the block's minimum to its maximum."""
    minimum = _first_minimum(lanes)
    with np.errstate(over="ignore"):  # refused below: such a minimum does not fit float16
        # + 0.0: the range of a block of zeros is +0, whatever the zeros' signs.
        scale = (lanes.max(axis=0) - minimum + np.float32(0)) / np.float32(top)
        lanes -= minimum
    lanes *= _reciprocal(scale)
    lanes += np.float32(0.5)
    return _half(scale, name), _half(minimum, name), _codes(lanes, top)


def _reciprocal(scale: np.ndarray) -> np.ndarray:
    """1/scale, and 0 where that is not a finite number."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.reciprocal(scale)
    return np.asarray(np.where(np.isfinite(inverse), inverse, np.float32(0)))


def _half(values: np.ndarray, name: str) -> np.ndarray:
    return cast(values, FLOAT16, f"{name}, scale or minimum of a block")


def _codes(lanes: np.ndarray, top: int) -> np.ndarray:
    codes = lanes.astype(np.uint8)
    np.minimum(codes, np.uint8(top), out=codes)
    return codes


def _first_peak(lanes: np.ndarray) -> np.ndarray:
    """Per block the first value of the largest magnitude, with its sign; +0 for zeros: [n]."""
    highest, lowest = lanes.max(axis=0), lanes.min(axis=0)
    peak = np.where(highest > -lowest, highest, lowest) + np.float32(0)
    ties = np.flatnonzero(highest == -lowest)
    if ties.size:
        tied = lanes[:, ties]
        positive_first = tied.argmax(axis=0) < tied.argmin(axis=0)
        peak[ties] = np.where(positive_first, highest[ties], lowest[ties]) + np.float32(0)
    return np.asarray(peak)


def _first_minimum(lanes: np.ndarray) -> np.ndarray:
    """Per block the smallest value; of zeros, the sign of the first one: [n]."""
    lowest = lanes.min(axis=0)
    zeros = np.flatnonzero(lowest == 0)
    if zeros.size:
        first = (lanes[:, zeros] == 0).argmax(axis=0)
        lowest[zeros] = lanes[first, zeros]
    return np.asarray(lowest)
