"""The levels that the codes of a grid without offsets stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from export.rounding.grid import Grid, Kind

CELLS = 512  # of a codebook's range, some twenty for each level


@dataclass(frozen=True)
class Book:
    """What scales are multiplied with.

    `nearest` turns quotients float32 [block, n] into levels, and may overwrite them; `codes` turns
    levels into the grid's codes. Whole levels reach at least as far down as up: those of a grid
    that reaches further up are negated; then `sign` is −1, and scales are to be negated too.
    """

    lowest: float
    highest: float
    nearest: Callable[[np.ndarray], np.ndarray]
    codes: Callable[[np.ndarray], np.ndarray]
    sign: float = 1


def book_of(grid: Grid) -> Book:
    """The levels of a grid of `Kind.SIGNED` or `Kind.CODEBOOK`."""
    return _codebook(grid) if grid.kind is Kind.CODEBOOK else _whole(grid)


def _whole(grid: Grid) -> Book:
    lowest, highest = grid.lowest - grid.zero, grid.highest - grid.zero
    sign = 1 if highest <= -lowest else -1
    if sign < 0:
        lowest, highest = -highest, -lowest

    def nearest(quotients: np.ndarray) -> np.ndarray:
        np.rint(quotients, out=quotients)
        return np.clip(quotients, lowest, highest, out=quotients)

    def codes(levels: np.ndarray) -> np.ndarray:
        return np.asarray((levels * np.float32(sign) + grid.zero).astype(grid.code_dtype))

    return Book(lowest, highest, nearest, codes, sign)


def _codebook(grid: Grid) -> Book:
    """Levels are looked up: a search among bounds takes ten times as long.

    The range is cut into cells with at most one bound each, with which a quotient is then compared.
    """
    levels = np.array(grid.levels, np.float32)
    bounds = (levels[1:] + levels[:-1]) / 2
    lowest, highest = levels[0], levels[-1]
    cells_per_unit = np.float32(CELLS) / (highest - lowest)

    def cells_of(quotients: np.ndarray) -> np.ndarray:
        cells = np.clip(quotients, lowest, highest)
        cells -= lowest
        cells *= cells_per_unit
        return np.asarray(cells.astype(np.intp))

    starts = np.searchsorted(cells_of(bounds), np.arange(CELLS + 1))
    nexts = np.append(bounds, np.inf).astype(np.float32)[starts]

    def nearest(quotients: np.ndarray) -> np.ndarray:
        cells = cells_of(quotients)
        numbers = starts.take(cells)
        numbers += quotients > nexts.take(cells)
        return np.asarray(levels.take(numbers))

    def codes(chosen: np.ndarray) -> np.ndarray:
        return np.asarray(np.searchsorted(levels, chosen), grid.code_dtype)

    return Book(grid.levels[0], grid.levels[-1], nearest, codes)
