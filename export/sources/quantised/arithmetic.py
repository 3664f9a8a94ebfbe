"""What readers share: codes out of packed words, and scale × (code − zero) in float32.

A product of a 16-bit scale and a code of up to 8 bits less its zero point has at most 20 bits, so
float32 holds it exactly; with a float32 scale it is rounded once.
"""

from __future__ import annotations

import numpy as np


def unpacked(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes uint8 [..., n × 32 / bits] of int32 words [..., n]; the lowest bits come first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    mask = np.uint32((1 << bits) - 1)
    wide = np.ascontiguousarray(words).view(np.uint32)[..., None] >> shifts & mask
    return np.asarray(wide.astype(np.uint8).reshape(*words.shape[:-1], -1))


def affine(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | int, groups: np.ndarray | None
) -> np.ndarray:
    """Scale × (code − zero), float32 [n, in].

    Args:
        codes: integers or small floats [n, in].
        scales: float32 [n, G].
        zeros: integers [n, G], or one for all.
        groups: which of the G each input belongs to [in]; None where they are equal stretches.
    """
    values = codes.astype(np.float32)
    if groups is not None:
        scales = scales[:, groups]
        zeros = zeros if isinstance(zeros, int) else zeros[:, groups]
    parts = values.reshape(len(values), scales.shape[1], -1)
    with np.errstate(over="ignore", invalid="ignore"):  # who streams them looks
        parts -= np.float32(zeros) if isinstance(zeros, int) else _column(zeros)
        parts *= _column(scales)
    return values


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, :, None]
