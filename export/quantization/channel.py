"""Eight bits with one scale per output channel, as onnxruntime.quantization rounds weights.

Invariant: bit for bit what `onnxruntime.quantization.quantize_dynamic(per_channel=True)` gives
(`quant_utils.compute_scale_zp`, `quantize_nparray`): scales and zero points in float64, scales
rounded once to float32, codes by float32 division, halves to even.
"""

from __future__ import annotations

import numpy as np

# Below it, a scale is replaced by 1: all codes are 0 then.
SMALLEST_SCALE = np.finfo(np.float32).tiny


def int8_channels(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round to symmetric codes: value ≈ scale × code, codes from −127 to 127.

    Args:
        rows: finite float32 [channels, in].

    Returns:
        codes int8 [channels, in], scales float32 [channels].
    """
    peak = np.abs(rows).max(axis=1).astype(np.float64)
    scales = _stored(peak * 2 / 254)
    return np.clip(np.rint(rows / scales[:, None]), -128, 127).astype(np.int8), scales


def uint8_channels(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round to value ≈ scale × (code − zero point); the range is widened to contain 0.

    Args as `int8_channels`.

    Returns:
        codes uint8 [channels, in], scales float32 [channels], zero points uint8 [channels].
    """
    lowest = np.minimum(rows.min(axis=1), 0).astype(np.float64)
    exact = (np.maximum(rows.max(axis=1), 0).astype(np.float64) - lowest) / 255
    scales = _stored(exact)
    usable = exact >= SMALLEST_SCALE
    zeros = np.rint(np.divide(-lowest, exact, out=np.zeros_like(exact), where=usable))
    codes = np.rint(rows / scales[:, None]) + zeros[:, None].astype(np.float32)
    return np.clip(codes, 0, 255).astype(np.uint8), scales, zeros.astype(np.uint8)


def _stored(exact: np.ndarray) -> np.ndarray:
    return np.where(exact < SMALLEST_SCALE, 1.0, exact).astype(np.float32)
