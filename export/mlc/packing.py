"""Pack small codes into 32-bit words, MLC's order: the first code in the lowest bits.

Source: mlc_llm `quantization/utils.py`, `pack_weight`.
"""

from __future__ import annotations

import numpy as np

from export.rounding import Grid

WORD_BITS = 32


def codes_per_word(bits: int) -> int:
    """Whole codes in a word: 8 of 4 bits, 10 of 3 bits (the top two bits stay 0)."""
    return WORD_BITS // bits


def words_per_group(grid: Grid) -> int:
    """Words that the codes of a group fill."""
    return grid.block // codes_per_word(grid.bits)


def pack(codes: np.ndarray, grid: Grid) -> np.ndarray:
    """Codes uint8 [group, n] → uint32 words [n, words of a group]."""
    lanes = codes.reshape(-1, codes_per_word(grid.bits), codes.shape[1])  # [words, codes, n]
    words = lanes[:, 0].astype(np.uint32)
    for lane in range(1, lanes.shape[1]):
        words |= lanes[:, lane].astype(np.uint32) << np.uint32(lane * grid.bits)
    return np.ascontiguousarray(words.T)
