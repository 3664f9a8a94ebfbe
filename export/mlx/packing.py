"""Pack codes into 32-bit words as MLX does: a row is one stream of bits, the lowest first.

Source: https://github.com/ml-explore/mlx, mlx/backend/cpu/quantized.cpp (`quantize`).
"""

from __future__ import annotations

import numpy as np

WORD_BITS = 32


def words_per_row(columns: int, bits: int) -> int:
    """Words that the codes of a row fill; rows divide into groups of 32, which fill whole ones."""
    return columns * bits // WORD_BITS


def pack(codes: np.ndarray, bits: int, rows: int) -> np.ndarray:
    """Codes uint8 [group, n], groups of the first row first → uint32 words [rows, words of a row].

    32 codes fill `bits` words, so that a code begins at the same place in each run of 32.
    """
    runs = codes.reshape(-1, WORD_BITS, codes.shape[1])  # [runs of a group, 32, n]
    words = np.zeros((len(runs), bits, codes.shape[1]), np.uint32)
    for index in range(WORD_BITS):
        word, shift = divmod(index * bits, WORD_BITS)
        lane = runs[:, index].astype(np.uint32)
        words[:, word] |= lane << np.uint32(shift)
        if shift + bits > WORD_BITS:
            words[:, word + 1] |= lane >> np.uint32(WORD_BITS - shift)
    return np.ascontiguousarray(words.reshape(-1, codes.shape[1]).T).reshape(rows, -1)
