"""What the tables of every report show of a measurement: the metrics' columns, and some more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeproof.display import errors_text, number
from runtimes.parity import metrics
from runtimes.parity.intervals import Estimate
from runtimes.parity.measure import Measurement
from runtimes.parity.metrics import Metric
from runtimes.parity.report.speeds import speed_cell


@dataclass(frozen=True)
class Column:
    """A column of the overview; `essential` ones stay where there is little room."""

    title: str
    text: Callable[[Measurement], str]
    essential: bool = False


def interval(estimate: Estimate) -> str:
    """Both ends, if there are any."""
    if not estimate.known:
        return "–"
    return f"{number(estimate.low)}–{number(estimate.high)}"


def errors(estimate: Estimate) -> str:
    """How many positions a share leaves, and at most how many more there may be."""
    return errors_text(estimate.value, estimate.low, estimate.positions or 0)


def part_text(m: Measurement | None) -> str:
    """Of how many positions an export's figures are, where these are not the whole text's."""
    return "" if m is None or m.whole_text else f"n = {m.positions:,}"


def columns() -> tuple[Column, ...]:
    """The columns in their order: each metric's that has one, with what stands beside it."""
    of_metrics = (
        column
        for metric in metrics.METRICS
        if metric.column is not None
        for column in (_column(metric, metric.column), *BESIDE.get(metric.name, ()))
    )
    return *of_metrics, *LAST


def _column(metric: Metric, title: str) -> Column:
    def text(m: Measurement) -> str:
        value = m.estimates[metric.name].value
        return "–" if math.isnan(value) else metric.unit.cell(value)

    return Column(title, text, metric.essential)


def _weights_kl(m: Measurement) -> str:
    if m.weights is None:
        return "exact" if m.exact_weights else "–"
    return number(m.weights["mean_kl"].value)


def _memory(m: Measurement) -> str:
    if m.footprint is None or m.footprint.peak_mb is None:
        return "–"
    return f"{m.footprint.peak_mb:.0f}"


# Metric → what stands to the right of its column.
BESIDE = {
    "mean_kl": (
        Column("95 % interval", lambda m: interval(m.estimates["mean_kl"])),
        Column("weights", _weights_kl),
    ),
    "p99_kl": (Column("max KL", lambda m: number(m.max_kl)),),
}
LAST = (
    Column("greedy", lambda m: f"{m.greedy.identical}/{m.greedy.prompts}" if m.greedy else "–"),
    Column("sampled", lambda m: f"{m.sampled.identical}/{m.sampled.prompts}" if m.sampled else "–"),
    Column("RAM MB", _memory),
    Column("tok/s, /CPU s", speed_cell),
)
