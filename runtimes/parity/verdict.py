"""From measurements to a verdict: PASS, DEGRADED, FAIL or INCONCLUSIVE, with reasons in words.

A verdict uses the interval, not the point: PASS needs the whole interval on the good side of every
gate, DEGRADED needs one gate's whole interval on the bad side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeproof.verdicts import Verdict
from runtimes.parity.gates import HEADROOM, Gate
from runtimes.parity.intervals import Estimate

MOST_TEXT = 100  # times as much: beyond that, nobody waits


@dataclass(frozen=True)
class Judgement:
    """A verdict and why. `notes` tell what did not decide it but a reader should know."""

    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> Judgement:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def judge(
    runtime: Mapping[str, Estimate],
    weights: Mapping[str, Estimate] | None,
    gates: Sequence[Gate],
    failures: Sequence[str],
) -> Judgement:
    """Apply gates to the estimates in the runtime and of the weights alone.

    `weights` is None where they are exact, or where they cannot be read.
    `failures` are hard faults (NaN, wrong tokens, …): any of them is a FAIL. A missed headroom is
    noted then, since it may be why.
    """
    if failures:
        notes = [
            f"{_shown(gate, runtime)}, needed {gate.text} ({gate.reason})"
            for gate in gates
            if gate.metric == HEADROOM.metric and _missed(gate, runtime[gate.metric])
        ]
        return Judgement(Verdict.FAIL, tuple(failures), tuple(notes))
    bad, open_, notes = [], [], []
    for gate in gates:
        if gate.of_weights and _missed(gate, runtime[gate.metric]):
            notes.append(
                f"in the runtime {_shown(gate, runtime)} misses {gate.text}: its arithmetic counts"
                " on top of the file's weights"
            )
        estimates = weights if gate.of_weights else runtime
        if estimates is None:
            continue
        estimate = estimates[gate.metric]
        misses = _missed(gate, estimate)
        name = f"weights' {_shown(gate, estimates)}" if gate.of_weights else _shown(gate, estimates)
        if not estimate.known:
            open_.append(f"{gate.metric} against {gate.text}: {unknown_text(estimate)}")
        elif misses == 2:
            bad.append(f"{name}, needed {gate.text} ({gate.reason})")
        elif misses:
            open_.append(
                f"{name} straddles {gate.text}: {more_text(estimate.text_needed(gate.limit))}"
            )
    if bad:
        return Judgement(Verdict.DEGRADED, tuple(bad))
    if open_:
        return Judgement(Verdict.INCONCLUSIVE, tuple(open_), tuple(notes))
    return Judgement(Verdict.PASS, (), tuple(notes))


def unknown_text(estimate: Estimate) -> str:
    """Why an estimate that is not `known` tells nothing, in words."""
    if math.isnan(estimate.value):
        return "no position of the text counts; give more text"
    return "one document has no interval; give several, the more the better"


def more_text(times: float) -> str:
    """How much text would decide, in words; `times` of `Estimate.text_needed`."""
    if times > MOST_TEXT:
        return "too close to decide with more text"
    return f"about {times:.1f} times as much text would decide"


def _shown(gate: Gate, estimates: Mapping[str, Estimate]) -> str:
    e = estimates[gate.metric]
    return f"{gate.metric} = {e.value:.4g} [{e.low:.4g}, {e.high:.4g}]"


def _missed(gate: Gate, estimate: Estimate) -> int:
    """How many ends of the interval are on the bad side of the gate: 0, 1 or 2."""
    ends = (estimate.low, estimate.high)
    return sum(end < gate.limit if gate.at_least else end > gate.limit for end in ends)
