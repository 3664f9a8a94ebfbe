"""Rounding in groups along the input axis, as `mlx.core.quantize` does in `affine` and `mxfp4`.

Invariant: bit for bit what MLX gives on a CPU, for float32, float16 and bfloat16 rows. Arithmetic
of `affine` is float32 for all of them, that of `mxfp4` the rows' own. MLX's Metal kernel for
`affine` rounds halves away from zero and begins a group's maximum at 0, so that an Apple GPU may
choose a neighbouring code.
Source: https://github.com/ml-explore/mlx, mlx/backend/cpu/quantized.cpp (`quantize`), mlx/ops.cpp
(`fp_quantize`) and mlx/backend/metal/kernels/quantized.h (`affine_quantize`).
"""

from __future__ import annotations

import numpy as np

from edgeproof.errors import InputError
from export.rounding.cast import FLOAT32, cast
from export.rounding.grid import Grid
from export.rounding.method import Rounded, lanes

SMALLEST_SCALE = np.float32(1e-7)
BIAS = 127  # of a scale's exponent
HALF = np.float32(0.5)


def affine(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """The end of a group that is further from 0 is a multiple of the scale, and its minimum.

    Where the maximum is that end, the scale is negative. Codes are chosen for scale and minimum
    before these are rounded to the grid's type.

    Raises:
        InputError: a scale or minimum overflows the grid's type.
    """
    values = lanes(rows, grid)
    top = np.float32(grid.highest)
    highest, lowest = values.max(axis=0), values.min(axis=0)
    below = np.abs(lowest) > np.abs(highest)
    with np.errstate(over="ignore"):
        scales = np.maximum((highest - lowest) / top, SMALLEST_SCALE)
    if not np.isfinite(scales).all():
        raise InputError(f"tensor {name}: the range of a group overflows float32")
    scales = np.where(below, scales, -scales)
    edges = np.where(below, lowest, highest)
    steps = np.rint(edges / scales)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.where(steps != 0, edges / steps, scales)
    minima = np.where(steps != 0, edges, np.float32(0))
    values -= minima
    values /= scales
    np.rint(values, out=values)
    np.clip(values, np.float32(0), top, out=values)
    where = f"{name}, scale or minimum of a group"
    return Rounded(
        values.astype(grid.code_dtype),
        cast(scales, grid.scale_dtype, where),
        cast(minima, grid.scale_dtype, where),
    )


def microscaled(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """The scale is the least power of two with which the peak is at most the highest level.

    Halves between levels go to the smaller one, zero has a positive sign, a group of zeros scale 1.
    Below 6 × 2⁻¹²⁷ MLX's exponent leaves its byte and comes in again on the other side; here it
    stays 2⁻¹²⁷.
    """
    values, dtype = lanes(rows, grid), rows.dtype
    levels = np.array(grid.levels, np.float32)
    magnitudes = levels[len(levels) // 2 :]
    peaks = np.abs(values).max(axis=0).astype(dtype) / dtype.type(magnitudes[-1])
    fractions, exponents = np.frexp(peaks.astype(FLOAT32))
    exponents = np.where(fractions == HALF, exponents - 1, exponents)
    exponents = np.where(peaks == 0, 0, np.maximum(exponents, -BIAS))
    quotients = np.ldexp(values, -exponents).astype(dtype).astype(FLOAT32)
    negative = quotients < 0
    np.abs(quotients, out=quotients)
    numbers = np.searchsorted((magnitudes[1:] + magnitudes[:-1]) / 2, quotients, side="left")
    middle = len(magnitudes)
    codes = np.where(negative & (numbers > 0), middle - 1 - numbers, middle + numbers)
    scales = (exponents + BIAS).astype(np.uint8).view(grid.scale_dtype)
    return Rounded(codes.astype(grid.code_dtype), scales)
