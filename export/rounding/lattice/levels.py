"""The levels of a block, and which of them its value of largest magnitude may have.

`Rungs` are tried in order, so that the first scale that fits is the smallest.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Rungs:
    """Levels of the value of largest magnitude: float64 [rungs], none 0.

    Where `free`, the level's sign is the one with which the scale is positive.
    """

    levels: np.ndarray
    free: np.ndarray


class Levels(Protocol):
    """What a code can stand for, before it is multiplied with the scale."""

    @property
    def rungs(self) -> Rungs:
        """In the order in which they are tried."""

    @property
    def spacing(self) -> float:
        """The least distance of two levels, beside the greatest one."""

    def nearest(self, quotients: np.ndarray) -> np.ndarray:
        """The level nearest to each value ÷ scale, in the same float type."""

    def admit(self, levels: np.ndarray) -> np.ndarray:
        """Whether a block can have these levels [block, n] together: bool [n]."""


@dataclass(frozen=True)
class SignedLevels:
    """Integers −2^(bits − 1) … 2^(bits − 1) − 1.

    With 8 bits the lowest one is the last resort (`lowest`) or not used at all: runtimes store
    −127 … 127, and the same codes have to come out for each of them.
    """

    bits: int
    lowest: bool = True

    @property
    def top(self) -> int:
        """The greatest level."""
        return (1 << (self.bits - 1)) - 1

    @property
    def rungs(self) -> Rungs:
        """See `Levels`: the lowest first, but with 8 bits."""
        free = np.arange(self.top, 0, -1, dtype=np.float64)
        extreme = np.array([-self.top - 1.0] if self.lowest else [])
        parts = [free, extreme] if self.bits == 8 else [extreme, free]
        return Rungs(np.concatenate(parts), np.concatenate(parts) > 0)

    @property
    def spacing(self) -> float:
        """See `Levels`."""
        return 1 / (self.top + 1)

    def nearest(self, quotients: np.ndarray) -> np.ndarray:
        """See `Levels`."""
        return np.asarray(np.rint(quotients))

    def admit(self, levels: np.ndarray) -> np.ndarray:
        """See `Levels`."""
        bottom = -self.top - 1 if self.lowest else -self.top
        return np.asarray((levels.min(axis=0) >= bottom) & (levels.max(axis=0) <= self.top))


@dataclass(frozen=True)
class WindowLevels:
    """Any 2^bits consecutive integers with 0 among them."""

    bits: int

    @property
    def top(self) -> int:
        """The greatest level."""
        return (1 << self.bits) - 1

    @property
    def rungs(self) -> Rungs:
        """See `Levels`."""
        free = np.arange(self.top, 0, -1, dtype=np.float64)
        return Rungs(free, free > 0)

    @property
    def spacing(self) -> float:
        """See `Levels`."""
        return 1 / self.top

    def nearest(self, quotients: np.ndarray) -> np.ndarray:
        """See `Levels`."""
        return np.asarray(np.rint(quotients))

    def admit(self, levels: np.ndarray) -> np.ndarray:
        """See `Levels`."""
        return np.asarray(highest(levels) - lowest(levels) <= self.top)


def lowest(levels: np.ndarray) -> np.ndarray:
    """The lowest level of each block, 0 included."""
    return np.asarray(np.minimum(levels.min(axis=0), 0))


def highest(levels: np.ndarray) -> np.ndarray:
    """The highest level of each block, 0 included."""
    return np.asarray(np.maximum(levels.max(axis=0), 0))


@functools.cache
def _of_integers(levels: tuple[float, ...]) -> np.ndarray:
    """The index of the level nearest to each integer from the lowest level to the highest."""
    integers = np.arange(levels[0], levels[-1] + 1)
    distances = np.abs(integers[:, None] - np.array(levels))
    return np.asarray(distances.argmin(axis=1).astype(np.uint8))


@dataclass(frozen=True)
class CodebookLevels:
    """Some fixed levels, ascending."""

    values: tuple[float, ...]

    @property
    def rungs(self) -> Rungs:
        """See `Levels`: from the greatest magnitude to the least, the positive one first."""
        levels = sorted((v for v in self.values if v), key=lambda v: (-abs(v), -v))
        return Rungs(np.array(levels), np.zeros(len(levels), bool))

    @property
    def spacing(self) -> float:
        """See `Levels`."""
        levels = np.array(self.values)
        return float(np.diff(levels).min() / np.abs(levels).max())

    def nearest(self, quotients: np.ndarray) -> np.ndarray:
        """See `Levels`."""
        return np.asarray(np.array(self.values, quotients.dtype)[self.codes(quotients)])

    def codes(self, quotients: np.ndarray) -> np.ndarray:
        """The index of the level nearest to each."""
        levels = np.array(self.values)
        if (levels != np.rint(levels)).any():
            return np.asarray(np.searchsorted((levels[1:] + levels[:-1]) / 2, quotients))
        low, high = levels[0], levels[-1]
        steps = np.clip(np.rint(quotients), low, high) - quotients.dtype.type(low)
        return np.asarray(_of_integers(self.values).take(steps.astype(np.int16)))

    def admit(self, levels: np.ndarray) -> np.ndarray:
        """See `Levels`: all together."""
        return np.ones(levels.shape[1], bool)
