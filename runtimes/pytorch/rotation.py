"""The rotary embedding of queries or keys, from the angles that transformers' model computed."""

from __future__ import annotations

import numpy as np


def rotated(rows: np.ndarray, cosine: np.ndarray, sine: np.ndarray, size: int) -> np.ndarray:
    """Rotate heads [T, heads × size] by angles whose cosines are [T, channels], halves as partners.

    Channels beyond those stay as they are.
    """
    heads = rows.reshape(len(rows), -1, size)
    turned, rest = np.split(heads, [cosine.shape[-1]], axis=-1)
    first, second = np.split(turned, 2, axis=-1)
    partner = np.concatenate((-second, first), -1)
    turned = turned * cosine[:, None] + partner * sine[:, None]
    return np.concatenate((turned, rest), -1).reshape(rows.shape)
