"""Which reals a stored float may stand for, and the floats of a type around a real.

A checkpoint in float16 or bfloat16 holds rounded products. A product is allowed where it rounds to
the stored value: between the midpoints to its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32

# float32 bits that the conversion drops, and half of the last one that it keeps.
HALF_ULP = {FLOAT16: np.int32(0x1000), BFLOAT16: np.int32(0x8000)}
LARGEST = np.float32(65504)
SMALLEST_NORMAL, HALF_SUBNORMAL = np.float32(2.0**-14), np.float32(2.0**-25)  # of float16


def working_dtype(dtype: np.dtype[Any], scale_dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In which products of a scale and a level, and quotients of an interval, are precise enough.

    With 16 bits on both sides a quotient that is no float of the scale's type is further from each
    than float32's error; so it is with float32 and float64.
    """
    return np.dtype(np.float64 if FLOAT32 in (dtype, scale_dtype) else np.float32)


def rounding_interval(
    magnitudes: np.ndarray, dtype: np.dtype[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest real that rounds to each value, ends included.

    `magnitudes` are float32 that `dtype` holds, above 0; others give what means nothing. The ends
    are exact: float32 for a type of 16 bits, float64 for float32.
    """
    if dtype == FLOAT32:
        bits = magnitudes.view(np.int32)
        wide = magnitudes.astype(np.float64)
        below = np.maximum(bits - 1, 0).view(np.float32)
        return (wide + below) / 2, (wide + (bits + 1).view(np.float32)) / 2
    bits, half = magnitudes.view(np.int32), HALF_ULP[dtype]
    low = np.maximum(bits - half, 0).view(np.float32)
    high = (bits + half).view(np.float32)
    if dtype == FLOAT16:
        tiny = magnitudes <= SMALLEST_NORMAL
        low = np.where(tiny, magnitudes - HALF_SUBNORMAL, low)
        high = np.where(magnitudes < SMALLEST_NORMAL, magnitudes + HALF_SUBNORMAL, high)
    return low, high


def at_least(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The smallest float of the type that is not below each positive value; perhaps infinity."""
    with np.errstate(over="ignore"):
        found = np.maximum(values, 0).astype(dtype)
    return np.where(found.astype(values.dtype) < values, following(found), found)


def is_float(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Whether float32 values are floats of a type of 16 bits, and finite in it."""
    kept = values.view(np.int32) & (2 * HALF_ULP[dtype] - 1) == 0
    if dtype == FLOAT16:
        steps = values * np.float32(2.0**24)  # float16 below its normal range: whole steps
        kept = np.where(np.abs(values) < SMALLEST_NORMAL, steps == np.rint(steps), kept)
        kept &= np.abs(values) <= LARGEST
    return np.asarray(kept & np.isfinite(values))


def following(floats: np.ndarray) -> np.ndarray:
    """The next greater float of each at least 0."""
    bits = np.dtype(f"u{floats.dtype.itemsize}")
    return np.asarray((floats.view(bits) + np.ones(1, bits)).view(floats.dtype))
