"""Summaries of per-position metrics: every metric of `metrics.METRICS`, with its interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtimes.parity import metrics
from runtimes.parity.divergence import PositionMetrics, concatenate
from runtimes.parity.intervals import (
    BOOTSTRAP,
    FEWEST_RESAMPLED,
    LEVEL,
    Estimate,
    Interval,
    Sample,
)
from runtimes.parity.metrics import Metric
from runtimes.parity.shares import share_estimate

RESAMPLES = 1000
SEED = 20240816  # any fixed number: the same report for the same measurements
BINS_PER_DECADE = 5
# Below the rounding of a float32 logit a divergence is zero.
LEAST_KL = 1e-12


@dataclass(frozen=True)
class Histogram:
    """How many values lie between one edge and the next; edges grow by a constant factor."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """The i-th lie between the i-th edge and the next."""


def summarise(documents: Sequence[PositionMetrics], level: float = LEVEL) -> dict[str, Estimate]:
    """Every metric over all documents, by its name, with its own kind of interval of that level."""
    samples = _resampled(documents)
    return {
        m.name: _counted(m, m.interval, replace(samples[m.name], level=level))
        for m in metrics.METRICS
    }


def paired_difference(
    first: Sequence[PositionMetrics], second: Sequence[PositionMetrics]
) -> dict[str, Estimate]:
    """Every metric of `second` minus that of `first`, both on the same documents in order.

    The interval is the bootstrap's: each resample draws the same documents for both, what a
    document costs both cancels out, so it is narrower than those of the two values suggest.

    Raises:
        ValueError: the documents' lengths differ.
    """
    lengths = [[len(document.kl) for document in side] for side in (first, second)]
    if lengths[0] != lengths[1]:
        raise ValueError("a paired comparison needs the same documents on both sides")
    before, after = _resampled(first), _resampled(second)
    differences = {
        name: Sample(
            after[name].value - one.value, after[name].resampled - one.resampled, one.documents
        )
        for name, one in before.items()
    }
    return {m.name: _counted(m, BOOTSTRAP, differences[m.name]) for m in metrics.METRICS}


def share_of_totals(parts: Sequence[int], totals: Sequence[int]) -> Estimate:
    """The sum of one over the sum of the other, both of the same things, with its exact interval.

    Where nothing is missing, or little, each of the things tells as much as one position.
    """
    whole = sum(totals)
    if not whole:
        return Estimate(math.nan, math.nan, math.nan, 0)
    shares = [
        np.repeat([1.0, 0.0], [part, total - part])
        for part, total in zip(parts, totals, strict=True)
        if total
    ]
    return share_estimate(sum(parts) / whole, shares, whole / len(shares))


def mean_kl_by_kind(kinds: Sequence[str], documents: Sequence[PositionMetrics]) -> dict[str, float]:
    """Mean KL per position of each kind of text; `kinds` are the documents', in their order.

    A kind without a position is left out.
    """
    found: dict[str, list[np.ndarray]] = {}
    for kind, document in zip(kinds, documents, strict=True):
        if len(document.kl):
            found.setdefault(kind, []).append(document.kl)
    return {kind: float(np.concatenate(parts).mean()) for kind, parts in found.items()}


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


def _counted(metric: Metric, interval: Interval, sample: Sample) -> Estimate:
    """The estimate with its positions, without an interval where these are too few for one."""
    estimate = interval.estimate(sample)
    if estimate.positions is None:
        count = sum(len(document.kl) for document in sample.documents)
        estimate = replace(estimate, positions=count)
    if (estimate.positions or 0) >= metric.least_positions:
        return estimate
    return replace(estimate, low=math.nan, high=math.nan)


def _resampled(documents: Sequence[PositionMetrics]) -> dict[str, Sample]:
    """Every metric's value, by its name, and its values on resamples of the documents.

    The draws depend on the number of documents only, so two exports share them. A single document
    cannot be resampled: NaN. Documents without positions are none.
    """
    documents = [document for document in documents if len(document.kl)]
    joined = concatenate(documents)
    order = np.argsort(joined.kl)
    joined = joined.taken(order)
    lengths = [len(document.kl) for document in documents]
    owner = np.repeat(np.arange(len(lengths)), lengths)[order]  # position → document
    chosen, times = draws(len(lengths))
    whole = np.ones(len(joined.kl))
    statistics = {metric.name: metric.statistic for metric in metrics.METRICS}
    values = np.full((len(chosen), len(statistics)), np.nan)
    for row, draw in zip(values, chosen if len(lengths) > 1 else (), strict=False):
        # One resample's at a time: they grow with the text.
        weights = draw[owner].astype(np.float64)
        row[:] = [statistic(joined, weights) for statistic in statistics.values()]
    values = values.repeat(times, axis=0)
    return {
        name: Sample(statistic(joined, whole), values[:, column], documents)
        for column, (name, statistic) in enumerate(statistics.items())
    }


def draws(documents: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each document is in a resample: int64 [R, documents], and how often that one comes.

    Of a few documents they are all there are, of more they are `RESAMPLES` random ones.
    """
    if documents < FEWEST_RESAMPLED:
        chosen = np.array([*itertools.product(range(documents), repeat=documents)])
        counts = (chosen[:, :, None] == np.arange(documents)).sum(axis=1)
        return np.unique(counts, axis=0, return_counts=True)
    rng = np.random.default_rng(SEED)
    random = rng.multinomial(documents, np.full(documents, 1 / documents), RESAMPLES)
    return random, np.ones(RESAMPLES, np.int64)
