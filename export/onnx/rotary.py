"""Rotary cosine and sine tables that are bit-equal on every machine.

Invariant: only IEEE 754 additions, multiplications and roundings touch the angles. NumPy's and
libm's own cosines differ in the last bit between CPUs, which would make the exported bytes differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

# π/2 in three parts; the first two have so few bits that quarter-turn counts multiply exactly.
HALF_PI_HIGH = float.fromhex("0x1.921fb544p+0")
HALF_PI_MIDDLE = float.fromhex("0x1.0b4611a6p-34")
HALF_PI_LOW = float.fromhex("0x1.3198a2e037073p-69")
# Taylor terms until the remainder at π/4 is below one unit in the last place of float64.
SINE_TERMS = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(10))
COSINE_TERMS = tuple((-1) ** k / math.factorial(2 * k) for k in range(10))


# Positions per block: a few MiB of float64 temporaries, whatever the context length.
BLOCK_POSITIONS = 4096


def cosines(
    positions: int, frequencies: np.ndarray, amplitude: float = 1.0
) -> Iterator[np.ndarray]:
    """Cosines of position × frequency, times the amplitude: blocks of rows of a float32 table.

    The table is [positions, pairs]. Frequencies, float32 [pairs], and angles are rounded as the
    reference does (transformers, `LlamaRotaryEmbedding`), so that far positions rotate by the same,
    rounded, angle.
    """
    return _table(positions, frequencies, amplitude, quarter_turns=0)


def sines(positions: int, frequencies: np.ndarray, amplitude: float = 1.0) -> Iterator[np.ndarray]:
    """As `cosines`: sin x = cos(x + 3 quarter turns)."""
    return _table(positions, frequencies, amplitude, quarter_turns=3)


def _table(
    positions: int, frequencies: np.ndarray, amplitude: float, quarter_turns: int
) -> Iterator[np.ndarray]:
    for start in range(0, positions, BLOCK_POSITIONS):
        stop = min(start + BLOCK_POSITIONS, positions)
        angles = np.arange(start, stop, dtype=np.float32)[:, None] * frequencies
        exact = _cosine(angles.astype(np.float64), quarter_turns).astype(np.float32)
        yield exact if amplitude == 1 else exact * np.float32(amplitude)


def _cosine(angles: np.ndarray, quarter_turns: int) -> np.ndarray:
    """cos(angle + quarter turns) to about 1e-15, for angles from 0 to 2²⁰."""
    quarters = np.rint(angles * (1 / HALF_PI_HIGH))
    rest = angles - quarters * HALF_PI_HIGH
    rest = rest - quarters * HALF_PI_MIDDLE
    rest = rest - quarters * HALF_PI_LOW
    square = rest * rest
    sine, cosine = rest * _polynomial(SINE_TERMS, square), _polynomial(COSINE_TERMS, square)
    turn = (quarters.astype(np.int64) + quarter_turns) % 4
    sign = np.where((turn == 1) | (turn == 2), -1.0, 1.0)
    return np.asarray(sign * np.where(turn % 2 == 1, sine, cosine))


def _polynomial(terms: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    result = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        result = result * x + term
    return result
