"""Exact intervals of shares, whose bootstrap has no width where there is no error.

Korn and Graubard, "Confidence intervals for proportions with small expected number of positive
counts estimated from survey data" (Survey Methodology 24, 1998): the interval of Clopper and
Pearson, of as many independent positions as would tell as much as these do, which come in
documents. How much less a position tells in a document is the design effect (Kish, "Survey
Sampling", 1965): the variance of a mean between documents, over what it were if their positions
were independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.intervals import (
    LEVEL,
    Estimate,
    Interval,
    Sample,
    clopper_pearson,
    students_t,
)

# Fewer errors do not tell how errors gather in documents.
TELLING_ERRORS = 10
# What is missing from 0 or 1 by less is rounding.
ROUNDING = 1e-9
# Beyond so many times, what no position shows is all of the interval.
MOST_PARTS = 100.0

# Of a document's positions [T] → float64 [T], from 0 to 1, or bool [T].
Values = Callable[[PositionMetrics], np.ndarray]


def exact_interval(values: Values, counts: Values) -> Interval:
    """The kind of interval of the share that `values` are, among the positions that `counts`.

    Of few errors, or none, the design effect is at least that of the KL at the same positions.
    """

    def estimate(sample: Sample) -> Estimate:
        chosen = [(document, counts(document)) for document in sample.documents]
        kept = [(document, rows) for document, rows in chosen if rows.any()]
        shares = [_rounded(values(document)[rows]) for document, rows in kept]
        effect = _design_effect([d.kl[rows] for d, rows in kept]) if len(kept) > 1 else 1.0
        return share_estimate(sample.value, shares, effect, sample.level)

    return Interval("exact", estimate)


def share_estimate(
    value: float, shares: list[np.ndarray], least_effect: float, level: float = LEVEL
) -> Estimate:
    """The interval of a share of some documents: float64 [T] each, from 0 to 1, T above 0.

    `least_effect` is the design effect that there is at least where few errors tell nothing of it.
    """
    positions = sum(map(len, shares))
    if len(shares) < 2:
        return Estimate(value, math.nan, math.nan, positions)
    few = (students_t(positions, level) / students_t(len(shares), level)) ** 2
    count = few * _independent(shares, least_effect)
    mean = float(np.concatenate(shares).mean())
    low, high = clopper_pearson(mean, count, level)
    # What no position shows may still be in 3 of so many: parts of positions hide that
    unseen, _ = clopper_pearson(1.0, few * positions, level)
    low, high = min(low, mean * unseen), max(high, 1 - (1 - mean) * unseen)
    return Estimate(value, low, high, positions, count)


def _rounded(values: np.ndarray) -> np.ndarray:
    """float64 [T] without the rounding of what is 0 or 1."""
    values = values.astype(np.float64)
    values[values < ROUNDING] = 0.0
    values[values > 1 - ROUNDING] = 1.0
    return values


def _independent(shares: list[np.ndarray], least_effect: float) -> float:
    """How many independent positions would tell as much as those of some documents."""
    joined = np.concatenate(shares)
    mean, variance = joined.mean(), joined.var()
    losses = joined if mean < 0.5 else 1 - joined
    # Kish's effective number of errors, which of whole ones is their number
    errors = losses.sum() ** 2 / (losses**2).sum() if losses.any() else 0.0
    if errors < TELLING_ERRORS:
        return len(joined) / max(_design_effect(shares), least_effect)
    # A share of parts of positions varies less than one of whole ones
    parts = min(mean * (1 - mean) / max(variance, ROUNDING), MOST_PARTS)
    return float(len(joined) * parts / _design_effect(shares))


def _design_effect(documents: list[np.ndarray]) -> float:
    """That of a mean over all values of some documents, at least 1."""
    joined = np.concatenate(documents)
    mean, variance = joined.mean(), joined.var()
    if not variance > 0:
        return 1.0
    sums = np.array([(values - mean).sum() for values in documents])
    between = len(sums) / (len(sums) - 1) * (sums**2).sum() / len(joined) ** 2
    return max(1.0, float(between / (variance / len(joined))))
