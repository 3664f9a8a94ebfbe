"""Cast float weights to another float type, refusing to turn a finite value into an infinity.

Invariant: the result is C-contiguous, correctly rounded (nearest, ties to even), and has an
infinity or NaN only where the source has one.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError

FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Bit pattern of +infinity, for the types that can overflow; sign bit set for -infinity.
INFINITY_BITS = {FLOAT16: 0x7C00, BFLOAT16: 0x7F80}
LARGEST = {FLOAT16: "65504", BFLOAT16: "3.39e38"}

# float32 bit patterns for `_to_float16`.
EXPONENT_MASK = np.uint32(0x7F800000)
FLOAT16_MIN_EXPONENT = np.uint32((127 - 14) << 23)
ADD_13 = np.uint32(13 << 23)
FLOAT16_OVERFLOW = np.float32(65520)  # the smallest value that rounds to infinity
CAST_GROUP = 1 << 15  # values per step: its temporaries stay in the L2 cache


def cast(array: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    """Cast a float32, float16 or bfloat16 array of any shape to one of these types.

    The array itself is returned where it is already C-contiguous and of that type. `name` is the
    tensor's name for the error.

    Raises:
        InputError: a finite value is too large for `dtype`.
    """
    with np.errstate(over="ignore"):
        if dtype == FLOAT16 and array.dtype == FLOAT32:
            result = _to_float16(array)
        else:
            result = np.ascontiguousarray(array, dtype).reshape(array.shape)
    if dtype != array.dtype and dtype in INFINITY_BITS and _has_nonfinite(result, dtype):
        _refuse_overflow(array, result, dtype, name)
    return result


def _to_float16(array: np.ndarray) -> np.ndarray:
    """`array.astype(float16)`, twice as fast: NumPy's own conversion goes value by value.

    Adding 2^(e + 13) to a value of exponent e rounds it to float16's 11 bits and leaves them in the
    low bits of the sum; e stops at -14, below which float16 is subnormal.
    """
    values = np.ascontiguousarray(array).reshape(-1)
    result = np.empty(values.size, np.uint16)
    group_size = min(values.size, CAST_GROUP)
    sums, magics = np.empty(group_size, np.float32), np.empty(group_size, np.uint32)
    for start in range(0, values.size, CAST_GROUP):
        group = values[start : start + CAST_GROUP]
        total, magic = sums[: group.size], magics[: group.size]
        np.abs(group, out=total)
        if not total.max() < FLOAT16_OVERFLOW:
            return np.asarray(array.astype(np.float16, order="C"))
        bits = total.view(np.uint32)
        np.bitwise_and(bits, EXPONENT_MASK, out=magic)
        np.maximum(magic, FLOAT16_MIN_EXPONENT, out=magic)
        magic += ADD_13
        total += magic.view(np.float32)
        bits -= magic  # 11 bits of mantissa, its leading 1 included
        magic -= ADD_13 + FLOAT16_MIN_EXPONENT
        magic >>= np.uint32(13)  # (e + 14) << 10; the leading 1 adds the missing one
        bits += magic
        np.right_shift(group.view(np.uint32), np.uint32(16), out=magic)
        magic &= np.uint32(0x8000)  # sign
        bits |= magic
        result[start : start + CAST_GROUP] = bits
    return result.view(np.float16).reshape(array.shape)


def _has_nonfinite(array: np.ndarray, dtype: np.dtype[Any]) -> bool:
    """Two integer maxima: several times cheaper than isfinite on 16-bit floats."""
    if array.size == 0:
        return False
    bits = INFINITY_BITS[dtype]
    highest = array.view(np.int16).max()
    lowest = array.view(np.uint16).max()
    return bool(highest >= bits or lowest >= bits | 0x8000)


def _refuse_overflow(
    array: np.ndarray, result: np.ndarray, dtype: np.dtype[Any], name: str
) -> None:
    finite = np.isfinite(array)
    if not np.any(finite & ~np.isfinite(result)):
        return
    peak = float(np.abs(array[finite].astype(np.float32)).max())
    raise InputError(
        f"tensor {name}: its largest value {peak:.6g} overflows {dtype.name}"
        f" (at most {LARGEST[dtype]}); choose a dtype with a wider range, such as"
        f" {'float32' if dtype == BFLOAT16 else 'bfloat16 or float32'}"
    )
