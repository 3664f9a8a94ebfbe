"""Summaries of per-position metrics with 95 % intervals that resample documents, not tokens.

Positions of one document are correlated, so resampling tokens would give intervals that are far
too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from runtimes.parity.metrics import PositionMetrics, concatenate

RESAMPLES = 1000
SEED = 20240816  # any fixed number: the same report for the same measurements
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


# Each statistic is a function of all positions' metrics and of a weight per position.
Statistic = Callable[[PositionMetrics, np.ndarray], float]


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _kl_quantile(m: PositionMetrics, weights: np.ndarray, q: float) -> float:
    """A weighted quantile; `summarise` has sorted the positions by their KL."""
    cumulative = np.cumsum(weights)
    index = np.searchsorted(cumulative, q * cumulative[-1])
    return float(m.kl[min(int(index), len(m.kl) - 1)])


def _clear_top1(m: PositionMetrics, w: np.ndarray) -> float:
    chosen = w * m.clear
    return _mean(m.top1, chosen) if chosen.sum() else 1.0


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
    "nmse": lambda m, w: _mean(m.squared_error, w) / _mean(m.squared_signal, w),
}


def summarise(documents: Sequence[PositionMetrics]) -> dict[str, Estimate]:
    """Every statistic over all documents, with its bootstrap interval."""
    joined = concatenate(documents)
    order = np.argsort(joined.kl)
    joined = PositionMetrics(*(getattr(joined, field.name)[order] for field in fields(joined)))
    lengths = [len(document.kl) for document in documents]
    owner = np.repeat(np.arange(len(lengths)), lengths)[order]  # position → document
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(len(lengths), np.full(len(lengths), 1 / len(lengths)), RESAMPLES)
    weights = [draw[owner].astype(np.float64) for draw in draws]
    tail = (1 - LEVEL) / 2
    whole = np.ones(len(joined.kl))
    result = {}
    for name, statistic in STATISTICS.items():
        values = np.array([statistic(joined, weight) for weight in weights])
        low, high = np.quantile(values, [tail, 1 - tail])
        result[name] = Estimate(statistic(joined, whole), float(low), float(high))
    return result
