"""Rounding rules of ggml's 32-value block types.

Invariant: bit for bit what ggml's C reference gives on x86 (quantize_row_*_ref in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c), for every block of finite
values whose scale fits float16; others are refused. Arithmetic is float32 throughout, as in C.
"""

from __future__ import annotations

import numpy as np

from export.rounding.cast import cast
from export.rounding.grid import Grid
from export.rounding.method import Rounded, lanes

SIGN_BIT = np.uint32(0x80000000)
# The float32 before 0.5. Adding it with the value's sign and truncating rounds half away from zero,
# without the error that 0.5 makes at 0.49999997.
BELOW_HALF_BITS = np.float32(0.49999997).view(np.uint32)


def centred(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """Q8_0: the code furthest from 0 is ±127, halves are rounded away from zero.

    Raises:
        InputError: a scale overflows float16.
    """
    values = lanes(rows, grid)
    peak = np.abs(np.maximum(values.max(axis=0), -values.min(axis=0)))  # abs: never -0
    scale = peak / np.float32(grid.highest)
    values *= _reciprocal(scale)
    halves = values.view(np.uint32) & SIGN_BIT
    halves |= BELOW_HALF_BITS
    values += halves.view(np.float32)
    return Rounded(values.astype(np.int8), _stored(scale, grid, name))


def signed(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """Q4_0, Q5_0: the value of largest magnitude gets code 0, whatever its sign.

    Errors as `centred`.
    """
    values = lanes(rows, grid)
    scale = _first_peak(values) / np.float32(-grid.zero)
    inverse = _reciprocal(scale)
    # C turns a block whose 1/scale is infinite into zero codes; a block of zeros gets `zero`.
    lost = (inverse == 0) & (scale != 0)
    values *= inverse
    values += np.where(lost, np.float32(0), np.float32(grid.zero + 0.5))
    return Rounded(_codes(values, grid), _stored(scale, grid, name))


def affine(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """Q4_1, Q5_1: codes from the block's minimum to its maximum.

    Errors as `centred`; the minimum too must fit float16.
    """
    values = lanes(rows, grid)
    minimum = _first_minimum(values)
    with np.errstate(over="ignore"):  # refused below: such a minimum does not fit float16
        # + 0.0: the range of a block of zeros is +0, whatever the zeros' signs.
        scale = (values.max(axis=0) - minimum + np.float32(0)) / np.float32(grid.highest)
        values -= minimum
    values *= _reciprocal(scale)
    values += np.float32(0.5)
    scales, minima = _stored(scale, grid, name), _stored(minimum, grid, name)
    return Rounded(_codes(values, grid), scales, minima)


def _reciprocal(scale: np.ndarray) -> np.ndarray:
    """1/scale, and 0 where that is not a finite number."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.reciprocal(scale)
    return np.asarray(np.where(np.isfinite(inverse), inverse, np.float32(0)))


def _stored(values: np.ndarray, grid: Grid, name: str) -> np.ndarray:
    return cast(values, grid.scale_dtype, f"{name}, scale or minimum of a block")


def _codes(values: np.ndarray, grid: Grid) -> np.ndarray:
    codes = values.astype(np.uint8)
    np.minimum(codes, np.uint8(grid.highest), out=codes)
    return codes


def _first_peak(values: np.ndarray) -> np.ndarray:
    """Per block the first value of the largest magnitude, with its sign; +0 for zeros: [n]."""
    highest, lowest = values.max(axis=0), values.min(axis=0)
    peak = np.where(highest > -lowest, highest, lowest) + np.float32(0)
    ties = np.flatnonzero(highest == -lowest)
    if ties.size:
        tied = values[:, ties]
        positive_first = tied.argmax(axis=0) < tied.argmin(axis=0)
        peak[ties] = np.where(positive_first, highest[ties], lowest[ties]) + np.float32(0)
    return np.asarray(peak)


def _first_minimum(values: np.ndarray) -> np.ndarray:
    """Per block the smallest value; of zeros, the sign of the first one: [n]."""
    lowest = values.min(axis=0)
    zeros = np.flatnonzero(lowest == 0)
    if zeros.size:
        first = (values[:, zeros] == 0).argmax(axis=0)
        lowest[zeros] = values[first, zeros]
    return np.asarray(lowest)
