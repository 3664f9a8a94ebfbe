"""A value with its interval, and the kinds of interval that a metric may have.

The bootstrap resamples documents, not tokens: positions of one document are correlated, so
resampling tokens would give intervals that are far too narrow. Those of few documents are widened
as Hesterberg's expanded percentile interval ("What Teachers Should Know About the Bootstrap", 2015,
arXiv:1411.5279).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from runtimes.parity.fields import AnyFloat

LEVEL = 0.95
# Resamples without any of 4 documents are e^-4 = 1.8 % of all, fewer than an interval leaves out.
DECISIVE_DOCUMENTS = 4.0


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    NaN is what the text cannot tell: a value of positions that it does not have, and the ends where
    there is one document only, which says nothing of how documents differ.
    """

    value: AnyFloat
    low: AnyFloat
    high: AnyFloat

    @staticmethod
    def exact(value: float) -> Estimate:
        """One value that was measured once, with an interval of no width."""
        return Estimate(value, value, value)

    @property
    def known(self) -> bool:
        """Whether there are a value and an interval."""
        return not any(map(math.isnan, (self.value, self.low, self.high)))

    def text_needed(self, limit: float) -> float:
        """How many times the text would move the interval off a limit that it straddles.

        An interval's width falls with the square root of the number of documents. 1 where the
        interval does not straddle the limit, infinite where the value lies on it. An end that lies
        on the limit comes from resamples that miss the few documents which make the value another.
        """
        if not self.low <= limit <= self.high:
            return 1.0
        distance = abs(self.value - limit)
        if distance and limit in (self.low, self.high):
            return DECISIVE_DOCUMENTS
        width = self.high - self.value if self.value < limit else self.value - self.low
        return (width / distance) ** 2 if distance else math.inf


@dataclass(frozen=True)
class Sample:
    """What an interval follows from: a statistic's value on the documents, and the documents.

    `resampled` has the statistic on each resample of them: float64 [R], NaN where a resample has no
    position that counts, and everywhere where there is one document only.
    """

    value: float
    resampled: np.ndarray
    documents: Sequence[Any]


@dataclass(frozen=True)
class Interval:
    """A kind of interval: its name in the table of metrics, and how it is found."""

    name: str
    estimate: Callable[[Sample], Estimate]


def _expanded_percentile(sample: Sample) -> Estimate:
    values = sample.resampled[~np.isnan(sample.resampled)]
    if not len(values):
        return Estimate(sample.value, math.nan, math.nan)
    tail = _tail(len(sample.documents))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(sample.value, float(low), float(high))


def _tail(documents: int) -> float:
    """The share of resamples to leave out at each end, of two documents or more.

    Resampled means vary by (n − 1) / n of what the mean does, and have a normal's tails where n
    documents tell no more than Student's t. Its quantile is Abramowitz and Stegun's 26.7.5.
    """
    free = documents - 1
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    t = z + (
        (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
    return NormalDist().cdf(-t * math.sqrt(documents / free))


BOOTSTRAP = Interval("bootstrap", _expanded_percentile)
