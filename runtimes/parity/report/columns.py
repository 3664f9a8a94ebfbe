"""What the tables of every report show of a measurement."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeproof.display import number
from runtimes.parity.measure import Measurement
from runtimes.parity.statistics import Estimate


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


def _percent(metric: str) -> Callable[[Measurement], str]:
    def text(m: Measurement) -> str:
        value = m.estimates[metric].value
        return "–" if math.isnan(value) else f"{value * 100:.1f}"

    return text


def _weights_kl(m: Measurement) -> str:
    if m.weights is None:
        return "exact" if m.exact_weights else "–"
    return number(m.weights["mean_kl"].value)


def _memory(m: Measurement) -> str:
    if m.footprint is None or m.footprint.peak_mb is None:
        return "–"
    return f"{m.footprint.peak_mb:.0f}"


COLUMNS = (
    Column("mean KL", lambda m: number(m.estimates["mean_kl"].value), essential=True),
    Column("95 % interval", lambda m: interval(m.estimates["mean_kl"])),
    Column("weights", _weights_kl),
    Column("p99 KL", lambda m: number(m.estimates["p99_kl"].value)),
    Column("max KL", lambda m: number(m.max_kl)),
    Column("top-1 %", _percent("top1"), essential=True),
    Column("clear %", _percent("clear_top1")),
    Column("accept %", _percent("acceptance"), essential=True),
    Column("PPL ratio", lambda m: f"{m.estimates['perplexity_ratio'].value:.3f}"),
    Column("greedy", lambda m: f"{m.greedy.identical}/{m.greedy.prompts}" if m.greedy else "–"),
    Column("sampled", lambda m: f"{m.sampled.identical}/{m.sampled.prompts}" if m.sampled else "–"),
    Column("RAM MB", _memory),
)
