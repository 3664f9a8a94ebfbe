"""Eight bits with one scale per output channel, as onnxruntime.quantization rounds weights.

Invariant: bit for bit what `onnxruntime.quantization.quantize_dynamic(per_channel=True)` gives
(`quant_utils.compute_scale_zp`, `quantize_nparray`): scales and zero points in float64, scales
rounded once to float32, codes by float32 division, halves to even.
"""

from __future__ import annotations

import numpy as np

from export.rounding.cast import FLOAT32
from export.rounding.grid import Grid
from export.rounding.method import Rounded

# Below it, a scale is replaced by 1: all codes are 0 then.
SMALLEST_SCALE = np.finfo(np.float32).tiny


def symmetric(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """The code furthest from 0 is ±127."""
    values = rows.astype(FLOAT32)
    peak = np.abs(values).max(axis=1).astype(np.float64)
    scales = _stored(peak * 2 / 254)
    codes = np.clip(np.rint(values / scales[:, None]), grid.lowest, grid.highest)
    return Rounded(codes.astype(np.int8).T, scales)


def asymmetric(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """Codes from the channel's minimum to its maximum; the range is widened to contain 0."""
    values = rows.astype(FLOAT32)
    lowest = np.minimum(values.min(axis=1), 0).astype(np.float64)
    exact = (np.maximum(values.max(axis=1), 0).astype(np.float64) - lowest) / grid.highest
    scales = _stored(exact)
    usable = exact >= SMALLEST_SCALE
    zeros = np.rint(np.divide(-lowest, exact, out=np.zeros_like(exact), where=usable))
    codes = np.rint(values / scales[:, None]) + zeros[:, None].astype(np.float32)
    codes = np.clip(codes, grid.lowest, grid.highest)
    return Rounded(codes.astype(np.uint8).T, scales, zeros.astype(np.uint8))


def _stored(exact: np.ndarray) -> np.ndarray:
    return np.where(exact < SMALLEST_SCALE, 1.0, exact).astype(np.float32)
