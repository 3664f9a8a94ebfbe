"""From measurements to a verdict: PASS, DEGRADED, FAIL or INCONCLUSIVE, with reasons in words.

A verdict uses the interval, not the point: PASS needs the whole interval on the good side of every
gate, DEGRADED needs one gate's whole interval on the bad side. A count is what it is: none needs
none, in enough positions, and one is too many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeproof.display import errors_text
from edgeproof.verdicts import Verdict
from runtimes.parity.gates import HEADROOM, Gate
from runtimes.parity.intervals import Estimate
from runtimes.parity.metrics import metric_named
from runtimes.parity.suite import Budget

MOST_TEXT = 100  # times as much: beyond that, nobody waits


@dataclass(frozen=True)
class Judgement:
    """A verdict and why. `notes` tell what did not decide it but a reader should know.

    `undecided` says of which gates more text would tell.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether it is bad, and more text would not say more of any gate."""
        bad = self.verdict in (Verdict.FAIL, Verdict.DEGRADED)
        return bad and not self.undecided

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
        if gate.of_weights and (missed := _missed(gate, runtime[gate.metric])):
            relation = "misses" if missed == 2 else "straddles"
            notes.append(
                f"in the runtime {_shown(gate, runtime)} {relation} {gate.text}: its arithmetic"
                " counts on top of the file's weights"
            )
        estimates = weights if gate.of_weights else runtime
        if estimates is None:
            continue
        estimate = estimates[gate.metric]
        name = f"weights' {_shown(gate, estimates)}" if gate.of_weights else _shown(gate, estimates)
        whole = max((e.positions or 0 for e in estimates.values()), default=0)
        if math.isnan(estimate.value) or not (estimate.known or gate.counted):
            why = unknown_text(gate.metric, estimate)
            open_.append(f"undecided, needed {gate.text}: {why}")
            continue
        misses, times = _decided(gate, estimate)
        if misses == 2:
            bad.append(f"{name}, needed {gate.text} ({gate.reason})")
        elif misses:
            relation = ": too few, needed" if gate.counted else " straddles"
            remedy = _more_to_count(gate, times) or more_text(times, whole)
            open_.append(f"{name}{relation} {gate.text}: {remedy}")
        elif gate.counted:
            notes.append(name)
    if bad:
        return Judgement(Verdict.DEGRADED, tuple(bad), tuple(notes), tuple(open_))
    if open_:
        return Judgement(Verdict.INCONCLUSIVE, tuple(open_), tuple(notes), tuple(open_))
    return Judgement(Verdict.PASS, (), tuple(notes))


def unknown_text(metric: str, estimate: Estimate) -> str:
    """Why an estimate that is not `known` tells nothing, in words."""
    if math.isnan(estimate.value):
        return "no position of the text counts; give more text"
    known = metric_named(metric)
    if known and estimate.positions is not None and estimate.positions < known.least_positions:
        return (
            f"{estimate.positions:,} positions have too few values beyond it;"
            f" give {known.least_positions:,}"
        )
    return "one document has no interval; give several, the more the better"


def more_text(times: float, positions: int) -> str:
    """How much text would decide, in words.

    `times` as `Estimate.text_needed` has it, of a text of so many positions.
    """
    if times > MOST_TEXT:
        return "too close to decide with more text"
    wanted = math.ceil(times * positions)
    budget = next((item for item in Budget if item.positions >= wanted), None)
    where = f"--budget {budget.value}" if budget else "--text with your own"
    return (
        f"about {times:.1f} times as much text would decide, {wanted - positions:,} positions more"
        f" ({where})"
    )


def _more_to_count(gate: Gate, times: float) -> str | None:
    """What to say of a count in next to no text, which is not close to anything."""
    if not gate.counted or times <= MOST_TEXT:
        return None
    return "too little text; give one with as many, or a greater --budget"


def _decided(gate: Gate, estimate: Estimate) -> tuple[int, float]:
    """How much of an estimate is on the bad side, as `_missed`, and how much text would decide.

    A count has no interval that could straddle: it misses with its value.
    """
    if not gate.counted:
        return _missed(gate, estimate), estimate.text_needed(gate.limit)
    if estimate.value < gate.limit:
        return 2, 1.0
    positions = estimate.positions or 0
    return int(positions < gate.counted), gate.counted / max(positions, 1)


def _shown(gate: Gate, estimates: Mapping[str, Estimate]) -> str:
    e = estimates[gate.metric]
    if gate.counted:
        return f"{gate.metric}: errors in {errors_text(e.value, e.low, e.positions or 0)}"
    return f"{gate.metric} = {e.value:.4g} [{e.low:.4g}, {e.high:.4g}]"


def _missed(gate: Gate, estimate: Estimate) -> int:
    """How many ends of the interval are on the bad side of the gate: 0, 1 or 2."""
    ends = (estimate.low, estimate.high)
    return sum(end < gate.limit if gate.at_least else end > gate.limit for end in ends)
