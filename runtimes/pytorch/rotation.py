"""The rotary embedding of queries or keys, from the angles that transformers' model computed."""

from __future__ import annotations

import numpy as np


def rotated(rows: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Rotate heads [T, heads × size] by angles whose cosines are [T, size], halves as partners."""
    heads = rows.reshape(len(rows), -1, cosine.shape[-1])
    first, second = np.split(heads, 2, axis=-1)
    partner = np.concatenate((-second, first), -1)
    return np.asarray(heads * cosine[:, None] + partner * sine[:, None]).reshape(rows.shape)
