"""From measurements to a verdict: PASS, DEGRADED, FAIL or INCONCLUSIVE, with reasons in words.

A verdict uses the interval, not the point: PASS needs the whole interval on the good side of every
gate, DEGRADED needs one gate's whole interval on the bad side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from runtimes.parity.gates import Gate
from runtimes.parity.statistics import Estimate


class Verdict(str, Enum):
    """How an artifact came out."""

    PASS = "PASS"
    DEGRADED = "DEGRADED"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Judgement:
    """A verdict and why."""

    verdict: Verdict
    reasons: tuple[str, ...]


def judge(
    estimates: Mapping[str, Estimate], gates: Sequence[Gate], failures: Sequence[str]
) -> Judgement:
    """Apply gates. `failures` are hard faults (NaN, wrong tokens, …): any of them is a FAIL."""
    if failures:
        return Judgement(Verdict.FAIL, tuple(failures))
    bad, open_ = [], []
    for gate in gates:
        estimate = estimates[gate.metric]
        misses = [_misses(gate, value) for value in (estimate.low, estimate.high)]
        text = f"{gate.metric} = {estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"
        if all(misses):
            bad.append(f"{text}, needed {gate.text} ({gate.reason})")
        elif any(misses):
            open_.append(f"{text} straddles {gate.text}: more text is needed")
    if bad:
        return Judgement(Verdict.DEGRADED, tuple(bad))
    if open_:
        return Judgement(Verdict.INCONCLUSIVE, tuple(open_))
    return Judgement(Verdict.PASS, ())


def _misses(gate: Gate, value: float) -> bool:
    return value < gate.limit if gate.at_least else value > gate.limit
