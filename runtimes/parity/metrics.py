"""The metrics: everything that a number of parity.json, its tables and gates follow from.

A metric is one object of `METRICS`. JSON, JSON Schema, terminal, page, Markdown, `edgeproof
compare`, a plan's gates and the table in docs/parity.md follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeproof.display import number
from runtimes.parity.divergence import PerPosition, PositionMetrics
from runtimes.parity.fields import Keywords
from runtimes.parity.intervals import BOOTSTRAP, Interval
from runtimes.parity.shares import exact_interval

# All positions, sorted by their KL, and a weight for each, float64 [T] → the statistic.
Statistic = Callable[[PositionMetrics, np.ndarray], float]


@dataclass(frozen=True)
class Unit:
    """A unit's name, and how a table's cell shows a value."""

    name: str
    cell: Callable[[float], str]


NATS = Unit("nats", number)
SHARE = Unit("share", lambda value: f"{value * 100:.1f}")  # in per cent
RATIO = Unit("ratio", lambda value: f"{value:.3f}")
LOGITS = Unit("logits", number)


@dataclass(frozen=True)
class Figure:
    """One entry of `estimates` in parity.json: its key there, what it means, its unit.

    `text` is a sentence or more, in Markdown. `more_is_better` says which side of a gate, and of
    another export, is the good one.
    """

    name: str
    text: str
    unit: Unit
    more_is_better: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Metric(Figure):
    """A figure of an export on a text: a statistic over all positions, with an interval.

    `column` is its title in the tables of verdicts, where it has one; `essential` ones stay where
    there is little room. `compared` ones are shown by `edgeproof compare`. `per_position` is a
    function of the metric's own, called with a few rows of logits at a time; the statistic finds
    its values in `PositionMetrics.further` under the metric's name. `least_positions` are what an
    interval needs: of fewer the metric has none.
    """

    statistic: Statistic
    interval: Interval = BOOTSTRAP
    column: str | None = None
    essential: bool = False
    compared: bool = False
    per_position: PerPosition | None = None
    least_positions: int = 1


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """The mean over positions [T] by their weights [T]; NaN where none has any."""
    total = weights.sum()  # np.average takes four times as long
    return float((values * weights).sum() / total) if total else math.nan


def everywhere(m: PositionMetrics) -> np.ndarray:
    """Every position counts: bool [T]."""
    return np.ones(len(m.kl), bool)


def _kl_quantile(m: PositionMetrics, weights: np.ndarray, q: float) -> float:
    cumulative = np.cumsum(weights)
    index = np.searchsorted(cumulative, q * cumulative[-1])
    return float(m.kl[min(int(index), len(m.kl) - 1)])


def _perplexity_ratio(m: PositionMetrics, w: np.ndarray) -> float:
    known = ~np.isnan(m.nll_reference)
    return float(np.exp(weighted_mean((m.nll_export - m.nll_reference)[known], w[known])))


METRICS: tuple[Metric, ...] = (
    Metric(
        "mean_kl",
        "KL(reference ‖ export), its mean over positions.",
        NATS,
        lambda m, w: weighted_mean(m.kl, w),
        column="mean KL",
        essential=True,
        compared=True,
    ),
    Metric(
        "median_kl",
        "KL(reference ‖ export), its median over positions.",
        NATS,
        lambda m, w: _kl_quantile(m, w, 0.5),
        least_positions=20,
    ),
    Metric(
        "p90_kl",
        "KL(reference ‖ export): nine of ten positions have at most that.",
        NATS,
        lambda m, w: _kl_quantile(m, w, 0.9),
        least_positions=100,
    ),
    Metric(
        "p99_kl",
        "KL(reference ‖ export): 99 of 100 positions have at most that. Below 1,000 positions it"
        " has no interval: that of 300 is the fourth largest value.",
        NATS,
        lambda m, w: _kl_quantile(m, w, 0.99),
        least_positions=1000,
        column="p99 KL",
        compared=True,
    ),
    Metric(
        "top1",
        "Positions where both have the same most likely token.",
        SHARE,
        lambda m, w: weighted_mean(m.top1, w),
        interval=exact_interval(lambda m: m.top1, everywhere),
        more_is_better=True,
        column="top-1 %",
        essential=True,
        compared=True,
    ),
    Metric(
        "clear_top1",
        "The same, of the positions where the reference's two best tokens are over 1 nat apart.",
        SHARE,
        lambda m, w: weighted_mean(m.top1, w * m.clear),
        interval=exact_interval(lambda m: m.top1, lambda m: m.clear),
        more_is_better=True,
        column="clear %",
        compared=True,
    ),
    Metric(
        "acceptance",
        "Σ min(p̃, q̃) over the distributions at temperature 0.2, top-p 0.9: the probability that an"
        " optimally coupled sampler emits the same token.",
        SHARE,
        lambda m, w: weighted_mean(m.acceptance, w),
        interval=exact_interval(lambda m: m.acceptance, everywhere),
        more_is_better=True,
        column="accept %",
        essential=True,
        compared=True,
    ),
    Metric(
        "perplexity_ratio",
        "The export's perplexity over the reference's, on the same text.",
        RATIO,
        _perplexity_ratio,
        column="PPL ratio",
        compared=True,
    ),
    Metric(
        "rms_logit_difference",
        "Root of the mean squared difference of raw logits, over all positions and tokens.",
        LOGITS,
        lambda m, w: math.sqrt(weighted_mean(m.squared_error, w)),
    ),
    Metric(
        "nmse",
        "Mean squared logit difference / variance of the reference's logits.",
        RATIO,
        lambda m, w: weighted_mean(m.squared_error, w) / weighted_mean(m.squared_signal, w),
        compared=True,
    ),
)

FP16_HEADROOM = Figure(
    "fp16_headroom",
    "65504 / the largest value in the reference run of what overflows float16 first: the residual"
    " stream times the artifact's `--residual-scale`, gate × up in the MLP, and what has a norm of"
    " its own: queries and keys (Qwen3), outputs of attention and MLP (Gemma 3). A CPU cannot"
    " show a GPU's overflow, this can; it is asked wherever users compute in float16. The"
    " report's `reference` has the peaks and their layers, and the headroom of the stream's"
    " squares: below 1, norms must add them up in float32.",
    RATIO,
    more_is_better=True,
)
CACHE_KL = Figure(
    "cache_kl",
    "KL between one pass and decoding in steps: of the greedy answers, or, where the text has no"
    " chats, of the last 16 of up to 64 tokens of a text. FAIL above 0.02.",
    NATS,
)
# Measured once for a whole export: there is nothing to resample.
SINGLE: tuple[Figure, ...] = (FP16_HEADROOM, CACHE_KL)


def further() -> dict[str, PerPosition]:
    """The functions of metrics that have one of their own, by the metric's name."""
    return {m.name: m.per_position for m in METRICS if m.per_position is not None}


def compared() -> list[Metric]:
    """What two exports are compared by: first what should be small, then what should be large."""
    return sorted((m for m in METRICS if m.compared), key=lambda m: m.more_is_better)


def figures() -> tuple[Figure, ...]:
    """All that an export's `estimates` may have, in their order there."""
    return *METRICS, *SINGLE


def metric_named(name: str) -> Metric | None:
    """The metric of that name; None for a figure that is measured once."""
    return next((metric for metric in METRICS if metric.name == name), None)


class ByMetric(Keywords):
    """Of a mapping from metrics to estimates: what each key means.

    With `weights`, of one that only has what follows from a text.
    """

    def __init__(self, *, weights: bool = False) -> None:
        super().__init__()
        self._weights = weights

    @property
    def keywords(self) -> dict[str, Any]:
        """The keys as properties; others are allowed, since a metric more is no other schema."""
        shown = METRICS if self._weights else figures()
        return {
            "properties": {
                figure.name: {
                    "description": f"{figure.text} Unit: {figure.unit.name}.",
                    "$ref": "#/$defs/Estimate",
                }
                for figure in shown
            }
        }
