"""Symmetric rounding of weights in groups along the input axis, as mlc_llm's group quantisation.

Invariant: every step rounds as in the reference's arithmetic, so codes and scales are bit-identical
to its own. Scales are in the model dtype. float16 rounds the quotient and the sum; bfloat16, which
CPUs do not compute in, only what is stored: TVM carries the quotient on in float32. Sources:
mlc_llm `quantization/group_quantization.py`, `GroupQuantize._quantize`; TVM's pass
`BF16ComputeLegalize`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupRounding:
    """`bits` per code, `size` weights per scale. Codes are 0 … 2m, m stands for zero."""

    bits: int
    size: int

    @property
    def middle(self) -> int:
        """The code m of the value 0: 7 for 4 bits, 3 for 3 bits."""
        return (1 << (self.bits - 1)) - 1

    def groups(self, columns: int) -> int:
        """Number of groups in a row; the last one may be padded."""
        return -(-columns // self.size)


def round_groups(weights: np.ndarray, rounding: GroupRounding) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of finite `weights` [rows, columns] in float16, bfloat16 or float32.

    Returns codes as uint8 [rows, groups × size], 0 in the padding, and scales in the weights'
    dtype [rows, groups]. A weight is about (code − m) × scale. A group whose scale is zero has the
    codes of the reference's division: 0 for zeros and negative values, 2m for positive ones.

    Temporaries take about 12 bytes per weight: callers pass blocks that fit into the CPU's cache.
    """
    rows, columns = weights.shape
    groups = rounding.groups(columns)
    padded = np.zeros((rows, groups * rounding.size), np.float32)
    padded[:, :columns] = weights
    values = padded.reshape(rows, groups, rounding.size)
    # float32 holds each quotient and sum of float16 values precisely enough that rounding it once
    # more gives the correctly rounded float16 result (24 ≥ 2 × 11 + 2 significant bits).
    scales = (np.abs(values).max(axis=-1) / np.float32(rounding.middle)).astype(weights.dtype)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotients = values / scales.astype(np.float32)[..., None]
        if weights.dtype == np.float16:
            quotients = quotients.astype(np.float16)
    codes = _codes(quotients, rounding.middle).reshape(rows, -1)
    codes[:, columns:] = 0
    return codes, scales


def _codes(quotients: np.ndarray, middle: int) -> np.ndarray:
    if quotients.dtype == np.float16:  # 65,536 possible quotients: look the code up
        return _code_table(middle).take(quotients.view(np.uint16))
    return _rounded(quotients, middle)


@functools.cache
def _code_table(middle: int) -> np.ndarray:
    """The code of every float16, indexed by its bit pattern."""
    return _rounded(np.arange(1 << 16, dtype=np.uint16).view(np.float16), middle)


def _rounded(quotients: np.ndarray, middle: int) -> np.ndarray:
    """clip(round_half_even(quotient + m), 0, 2m), the sum rounded to the quotients' dtype."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = (quotients.astype(np.float32) + np.float32(middle)).astype(quotients.dtype)
        steps = np.rint(shifted.astype(np.float32))
        # fmax takes the other operand where one is NaN: 0 ÷ 0 becomes code 0.
        return np.asarray(np.fmin(np.fmax(steps, 0), 2 * middle), np.uint8)
