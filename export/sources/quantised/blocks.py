"""8-bit floats (e4m3) and integers with a scale for each rectangle of a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def block_rows(
    codes: np.ndarray, scales: np.ndarray, block: Sequence[int], start: int
) -> np.ndarray:
    """Code × scale of its block, float32 [n, in].

    Args:
        codes: some rows [n, in].
        scales: floats [out / block rows, in / block columns], both rounded up.
        block: rows and columns of a block.
        start: the number of the first row.
    """
    rows, columns = block
    values = codes.astype(np.float32)
    down = (start + np.arange(len(values))) // rows
    across = np.arange(values.shape[1]) // columns
    with np.errstate(over="ignore", invalid="ignore"):  # who streams them looks
        values *= scales[down].astype(np.float32)[:, across]
    return values
