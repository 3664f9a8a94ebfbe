"""Symmetric rounding of weights in groups along the input axis, as mlc_llm's group quantisation.

Invariant: every step rounds as in the reference's arithmetic, so codes and scales are bit-identical
to its own. Scales are in the dtype of the rows, the model's. float16 rounds the quotient and the
sum; bfloat16, which CPUs do not compute in, only what is stored: TVM carries the quotient on in
float32. Sources: mlc_llm `quantization/group_quantization.py`, `GroupQuantize._quantize`; TVM's
pass `BF16ComputeLegalize`.
"""

from __future__ import annotations

import functools

import numpy as np

from export.rounding.cast import FLOAT16, FLOAT32, cast
from export.rounding.grid import Grid
from export.rounding.method import Rounded, lanes


def symmetric(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """Codes 0 … 2 × zero: the grid's greatest code is not used.

    A group whose scale is zero has the codes of the reference's division: 0 for zeros and negative
    values, 2 × zero for positive ones. Scales are rounded to the grid's type after codes are
    chosen.

    Raises:
        InputError: a scale overflows the grid's type.
    """
    values = lanes(rows, grid)
    # float32 holds each quotient and sum of float16 values precisely enough that rounding it once
    # more gives the correctly rounded float16 result (24 ≥ 2 × 11 + 2 significant bits).
    peaks = np.maximum(values.max(axis=0), -values.min(axis=0))
    scales = np.abs(peaks / np.float32(grid.zero)).astype(rows.dtype)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values /= scales.astype(FLOAT32)
        if rows.dtype == FLOAT16:
            values = values.astype(FLOAT16)
    stored = cast(scales, grid.scale_dtype, f"{name}, scale of a group")
    return Rounded(_codes(values, grid.zero), stored)


def _codes(quotients: np.ndarray, zero: int) -> np.ndarray:
    if quotients.dtype == FLOAT16:  # 65,536 possible quotients: look the code up
        return _code_table(zero).take(quotients.view(np.uint16))
    return _rounded(quotients, zero)


@functools.cache
def _code_table(zero: int) -> np.ndarray:
    """The code of every float16, indexed by its bit pattern."""
    return _rounded(np.arange(1 << 16, dtype=np.uint16).view(FLOAT16), zero)


def _rounded(quotients: np.ndarray, zero: int) -> np.ndarray:
    """clip(round_half_even(quotient + zero), 0, 2 × zero), the sum rounded to their dtype."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = (quotients.astype(FLOAT32) + np.float32(zero)).astype(quotients.dtype)
        steps = np.rint(shifted.astype(FLOAT32))
        # fmax takes the other operand where one is NaN: 0 ÷ 0 becomes code 0.
        return np.asarray(np.fmin(np.fmax(steps, 0), 2 * zero), np.uint8)
