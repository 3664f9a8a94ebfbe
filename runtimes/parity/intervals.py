"""A value with its interval, and the kinds of interval that a metric may have.

The bootstrap resamples documents, not tokens: positions of one document are correlated, so
resampling tokens would give intervals that are far too narrow. Those of few documents are widened
as Hesterberg's expanded percentile interval ("What Teachers Should Know About the Bootstrap", 2015,
arXiv:1411.5279). Shares have an interval of their own: `shares`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.fields import AnyFloat

LEVEL = 0.95
# Resamples without any of 4 documents are e^-4 = 1.8 % of all, fewer than an interval leaves out.
DECISIVE_DOCUMENTS = 4.0
# Of fewer documents a resample has no values beyond the worst and the best document's; nor has it
# any beyond those of all resamples, for an interval that leaves out less than one.
FEWEST_RESAMPLED = 6
# How finely, and how far, the text is looked for that would decide a share: a factor.
STEP, FARTHEST = 1.05, 1000.0


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: of 95 %, or more where a text is looked at several times.

    NaN is what the text cannot tell: a value of positions that it does not have, and the ends where
    there is one document only, which says nothing of how documents differ.
    """

    value: AnyFloat
    low: AnyFloat
    high: AnyFloat
    positions: int | None = None
    """Positions that it is of; null where it was measured once."""
    effective: float | None = None
    """Of a share: as many independent positions would tell as much. Null where it has none."""

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

        An interval's width falls with the square root of the number of documents; a share's is that
        of so many more independent positions. 1 where the interval does not straddle the limit,
        infinite where the value lies on it. An end that lies on the limit comes from resamples that
        miss the few documents which make the value another.
        """
        if not self.low <= limit <= self.high:
            return 1.0
        distance = abs(self.value - limit)
        if not distance:
            return math.inf
        if self.effective is not None:
            return _share_text_needed(self.value, self.effective, limit)
        if limit in (self.low, self.high):
            return DECISIVE_DOCUMENTS
        width = self.high - self.value if self.value < limit else self.value - self.low
        return (width / distance) ** 2


@dataclass(frozen=True)
class Sample:
    """What an interval follows from: a statistic's value on the documents, and the documents.

    `resampled` has the statistic on each resample of them: float64 [R], NaN where a resample has no
    position that counts, and everywhere where there is one document only. `level` is how often an
    interval is to hold the truth.
    """

    value: float
    resampled: np.ndarray
    documents: Sequence[PositionMetrics]
    level: float = LEVEL


@dataclass(frozen=True)
class Interval:
    """A kind of interval: its name in the table of metrics, and how it is found."""

    name: str
    estimate: Callable[[Sample], Estimate]


def clopper_pearson(share: float, count: float, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share among so many independent positions, not always whole ones.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial" (1934), by quantiles of the beta distribution. Where no position or every one is
    counted, one end is certain, and the other has all of what is left out: of 5 %, 3 / count, the
    rule of three.
    """
    from scipy.stats import beta

    hits, misses = share * count, (1 - share) * count
    tail = (1 - level) / (1 if share in (0, 1) else 2)
    low = float(beta.ppf(tail, hits, misses + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, misses)) if misses > 0 else 1.0
    return low, high


def students_t(documents: int, level: float = LEVEL) -> float:
    """How many standard errors of a mean of so many values an interval goes to each side."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, documents - 1))


def _share_text_needed(share: float, count: float, limit: float) -> float:
    times = 1.0
    while times < FARTHEST:
        times *= STEP
        low, high = clopper_pearson(share, count * times)
        if not low <= limit <= high:
            return times
    return math.inf


def _expanded_percentile(sample: Sample) -> Estimate:
    values = sample.resampled[~np.isnan(sample.resampled)]
    if not len(values):
        return Estimate(sample.value, math.nan, math.nan)
    documents = len(sample.documents)
    tail = _tail(documents, sample.level)
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    if documents < FEWEST_RESAMPLED or tail * len(values) < 1:
        deviation = float(values.std()) * math.sqrt(documents / (documents - 1))
        reach = students_t(documents, sample.level) * deviation
        low, high = min(low, sample.value - reach), max(high, sample.value + reach)
    return Estimate(sample.value, low, high)


def _tail(documents: int, level: float) -> float:
    """The share of resamples to leave out at each end, of two documents or more.

    Resampled means vary by (n − 1) / n of what the mean does, and have a normal's tails where n
    documents tell no more than Student's t.
    """
    from scipy.stats import norm

    reach = students_t(documents, level) * math.sqrt(documents / (documents - 1))
    return float(norm.cdf(-reach))


BOOTSTRAP = Interval("bootstrap", _expanded_percentile)
