"""Summaries of per-position metrics with 95 % intervals that resample documents, not tokens.

Positions of one document are correlated, so resampling tokens would give intervals that are far
too narrow. Those of few documents are widened as Hesterberg's expanded percentile interval ("What
Teachers Should Know About the Bootstrap", 2015, arXiv:1411.5279).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist

import numpy as np

from runtimes.parity.metrics import PositionMetrics, concatenate

RESAMPLES = 1000
SEED = 20240816  # any fixed number: the same report for the same measurements
LEVEL = 0.95
BINS_PER_DECADE = 5
# Below the rounding of a float32 logit a divergence is zero.
LEAST_KL = 1e-12
# Resamples without any of 4 documents are e^-4 = 1.8 % of all, fewer than an interval leaves out.
DECISIVE_DOCUMENTS = 4.0


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    NaN is what the text cannot tell: a value of positions that it does not have, and the ends where
    there is one document only, which says nothing of how documents differ.
    """

    value: float
    low: float
    high: float

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
class Histogram:
    """How many values lie between one edge and the next; edges grow by a constant factor."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


# Each statistic is a function of all positions' metrics and of a weight per position.
Statistic = Callable[[PositionMetrics, np.ndarray], float]


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights)) if weights.any() else math.nan


def _kl_quantile(m: PositionMetrics, weights: np.ndarray, q: float) -> float:
    """A weighted quantile; `summarise` has sorted the positions by their KL."""
    cumulative = np.cumsum(weights)
    index = np.searchsorted(cumulative, q * cumulative[-1])
    return float(m.kl[min(int(index), len(m.kl) - 1)])


def _clear_top1(m: PositionMetrics, w: np.ndarray) -> float:
    return _mean(m.top1, w * m.clear)


def _perplexity_ratio(m: PositionMetrics, w: np.ndarray) -> float:
    known = ~np.isnan(m.nll_reference)
    return float(np.exp(_mean((m.nll_export - m.nll_reference)[known], w[known])))


STATISTICS: dict[str, Statistic] = {
    "mean_kl": lambda m, w: _mean(m.kl, w),
    "median_kl": lambda m, w: _kl_quantile(m, w, 0.5),
    "p90_kl": lambda m, w: _kl_quantile(m, w, 0.9),
    "p99_kl": lambda m, w: _kl_quantile(m, w, 0.99),
    "top1": lambda m, w: _mean(m.top1, w),
    "clear_top1": _clear_top1,
    "acceptance": lambda m, w: _mean(m.acceptance, w),
    "perplexity_ratio": _perplexity_ratio,
    "rms_logit_difference": lambda m, w: math.sqrt(_mean(m.squared_error, w)),
    "nmse": lambda m, w: _mean(m.squared_error, w) / _mean(m.squared_signal, w),
}


def summarise(documents: Sequence[PositionMetrics]) -> dict[str, Estimate]:
    """Every statistic over all documents, with its bootstrap interval."""
    tail = _tail(len(documents))
    return {name: _estimate(*sample, tail) for name, sample in _resampled(documents).items()}


def paired_difference(
    first: Sequence[PositionMetrics], second: Sequence[PositionMetrics]
) -> dict[str, Estimate]:
    """Every statistic of `second` minus that of `first`, both on the same documents in order.

    Each resample draws the same documents for both: what a document costs both cancels out, so the
    interval is narrower than those of the two values suggest.

    Raises:
        ValueError: the documents' lengths differ.
    """
    lengths = [[len(document.kl) for document in side] for side in (first, second)]
    if lengths[0] != lengths[1]:
        raise ValueError("a paired comparison needs the same documents on both sides")
    before, after, tail = _resampled(first), _resampled(second), _tail(len(first))
    return {
        name: _estimate(after[name][0] - value, after[name][1] - values, tail)
        for name, (value, values) in before.items()
    }


def mean_kl_by_kind(kinds: Sequence[str], documents: Sequence[PositionMetrics]) -> dict[str, float]:
    """Mean KL per position of each kind of text; `kinds` are the documents', in their order."""
    return {
        kind: float(
            np.concatenate(
                [d.kl for k, d in zip(kinds, documents, strict=True) if k == kind]
            ).mean()
        )
        for kind in dict.fromkeys(kinds)
    }


def log_histogram(values: np.ndarray) -> Histogram:
    """Counts in logarithmic bins, from the first that has any to the last.

    What is below `LEAST_KL` is in its bin, what rounding made negative too.
    """
    exponents = np.log10(np.maximum(values, LEAST_KL)) * BINS_PER_DECADE
    bins = np.floor(exponents).astype(int)
    first = int(bins.min())
    counts = np.bincount(bins - first)
    powers = np.arange(first, first + len(counts) + 1) / BINS_PER_DECADE
    edges = (float(f"{10.0**power:.4g}") for power in powers)
    return Histogram(tuple(edges), tuple(counts.tolist()))


def _resampled(documents: Sequence[PositionMetrics]) -> dict[str, tuple[float, np.ndarray]]:
    """Every statistic's value, and its values float64 [RESAMPLES] on resampled documents.

    The draws depend on the number of documents only, so two exports share them. A single document
    cannot be resampled: NaN.
    """
    joined = concatenate(documents)
    order = np.argsort(joined.kl)
    joined = PositionMetrics(*(getattr(joined, field.name)[order] for field in fields(joined)))
    lengths = [len(document.kl) for document in documents]
    owner = np.repeat(np.arange(len(lengths)), lengths)[order]  # position → document
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(len(lengths), np.full(len(lengths), 1 / len(lengths)), RESAMPLES)
    whole = np.ones(len(joined.kl))
    values = np.full((RESAMPLES, len(STATISTICS)), np.nan)
    for row, draw in zip(values, draws if len(lengths) > 1 else (), strict=False):
        weights = draw[owner].astype(
            np.float64
        )  # one resample's at a time: they grow with the text
        row[:] = [statistic(joined, weights) for statistic in STATISTICS.values()]
    return {
        name: (statistic(joined, whole), values[:, column])
        for column, (name, statistic) in enumerate(STATISTICS.items())
    }


def _tail(documents: int) -> float:
    """The share of resamples to leave out at each end.

    Resampled means vary by (n − 1) / n of what the mean does, and have a normal's tails where n
    documents tell no more than Student's t. Its quantile is Abramowitz and Stegun's 26.7.5.
    """
    free = documents - 1
    if not free:
        return 0.0
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    t = z + (
        (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
    return NormalDist().cdf(-t * math.sqrt(documents / free))


def _estimate(value: float, values: np.ndarray, tail: float) -> Estimate:
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
