"""Scales that are powers of two: of all, for each block the one with the least error."""

from __future__ import annotations

import numpy as np

from export.rounding.grid import Grid
from export.rounding.method import Rounded
from export.rounding.search.blocks import Blocks, Leader
from export.rounding.search.book import book_of

BIAS, LEAST, MOST = 127, 0, 254  # what a scale's byte is above its exponent, and its range
# Exponents tried below that with which the highest level is 1, as a block's peak is at most; above.
BELOW, ABOVE = 3, 1


def search(blocks: Blocks, grid: Grid) -> Rounded:
    """Codes and scales of a grid of `Kind.CODEBOOK` with `POWERS_OF_TWO`.

    Peaks of `blocks.values` are 0.5 … 1, so that the same few exponents are tried for all blocks.
    """
    book = book_of(grid)
    units = np.frexp(blocks.units)[1] - 1
    usual = int(np.floor(np.log2(1 / book.highest)))
    leader = Leader(blocks, 1)
    for exponent in range(usual + ABOVE, usual - BELOW - 1, -1):
        stored = np.clip(exponent + units, LEAST - BIAS, MOST - BIAS) - units
        scales = np.ldexp(np.float32(1), stored).astype(np.float32)
        levels = book.nearest(blocks.quotients(scales))
        leader.offer(-blocks.errors(levels, scales), stored.astype(np.float32))
    (found,) = leader.numbers
    exponents = np.where(blocks.values.any(axis=0), found.astype(np.int32) + units, 0)
    scales = np.ldexp(np.float32(1), exponents - units).astype(np.float32)
    codes = book.codes(book.nearest(blocks.quotients(scales)))
    middle = len(grid.levels) // 2
    codes[codes == middle - 1] = middle  # zero has a positive sign
    return Rounded(codes, (exponents + BIAS).astype(np.uint8).view(grid.scale_dtype))
