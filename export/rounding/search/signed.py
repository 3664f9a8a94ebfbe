"""Scale × level: whole levels around 0, or those of a codebook."""

from __future__ import annotations

import numpy as np

from export.rounding.grid import Grid
from export.rounding.method import Rounded
from export.rounding.search.blocks import Blocks, Leader
from export.rounding.search.book import Book, book_of

# The value of largest magnitude is tried at both ends of the levels, and at so many times each end.
# Where values matter unlike it may be one that matters little, and may then lie far outside.
FRACTIONS = (0.95, 1.05)
WEIGHTED_FRACTIONS = (0.9, 1.1, 1.25, 1.5)


def search(blocks: Blocks, grid: Grid) -> Rounded:
    """See `export.rounding.search`.

    Raises:
        InputError: a scale overflows the grid's type.
    """
    book, dtype = book_of(grid), grid.scale_dtype
    best, fitted = Leader(blocks, 1), Leader(blocks, 1)

    def measured(scales: np.ndarray) -> np.ndarray:
        """The levels for these scales as they are stored, after they had their chance."""
        stored = blocks.stored_scales(scales, dtype)
        levels = book.nearest(blocks.quotients(stored))
        best.offer(-blocks.errors(levels, stored), stored)
        return levels

    peaks = _peaks(blocks, grid, book)
    for end in (book.lowest, book.highest):
        scales = peaks / np.float32(end)
        fitted.offer(*blocks.fit(measured(scales)))
        for fraction in FRACTIONS if blocks.weights is None else WEIGHTED_FRACTIONS:
            quotients = blocks.quotients(scales / np.float32(fraction))
            fitted.offer(*blocks.fit(book.nearest(quotients)))
    measured(*fitted.numbers)
    (scales,) = best.numbers
    codes = book.codes(book.nearest(blocks.quotients(scales)))
    return Rounded(codes, blocks.written(scales * np.float32(book.sign), dtype))


def _peaks(blocks: Blocks, grid: Grid, book: Book) -> np.ndarray:
    """Per block the value of largest magnitude: [n].

    Of two such values, the one that the lowest level suits better.

    Raises:
        InputError: its scale overflows.
    """
    highest, lowest = blocks.values.max(axis=0), blocks.values.min(axis=0)
    peaks: np.ndarray = np.where(highest > -lowest, highest, lowest)
    blocks.written(peaks / np.float32(book.lowest), grid.scale_dtype)
    ties = np.flatnonzero(highest == -lowest)
    if ties.size:
        tied = blocks.only(ties)
        choice = Leader(tied, 1)
        for candidates in (highest[ties], lowest[ties]):
            scales = candidates / np.float32(book.lowest)
            stored = tied.stored_scales(scales, grid.scale_dtype)
            levels = book.nearest(tied.quotients(stored))
            choice.offer(-tied.errors(levels, stored), candidates)
        (peaks[ties],) = choice.numbers
    return peaks
