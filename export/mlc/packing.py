"""Pack small codes into 32-bit words, MLC's order: the first code in the lowest bits.

Source: mlc_llm `quantization/utils.py`, `pack_weight`.
"""

from __future__ import annotations

import numpy as np

WORD_BITS = 32


def codes_per_word(bits: int) -> int:
    """Whole codes in a word: 8 of 4 bits, 10 of 3 bits (the top two bits stay 0)."""
    return WORD_BITS // bits


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes [rows, n] → uint32 words [rows, n ÷ codes_per_word]; n must be a multiple."""
    per_word = codes_per_word(bits)
    lanes = codes.reshape(len(codes), -1, per_word)  # [rows, words, codes of a word]
    words = lanes[..., 0].astype(np.uint32)
    for lane in range(1, per_word):
        words |= lanes[..., lane].astype(np.uint32) << np.uint32(lane * bits)
    return words
