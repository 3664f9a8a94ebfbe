"""What to ship: what few bits cost, what is smallest for each target, and what beats what.

Everything follows from the entries' sizes, estimates and verdicts; nothing is measured here. What
was read on a part of the text is compared with others on that part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeproof.artifact import Precision
from edgeproof.verdicts import Verdict
from runtimes.formats import Deployment, known_formats, reader
from runtimes.parity.execution import executed
from runtimes.parity.fields import AnyFloat
from runtimes.parity.gates import GATES, HEADROOM, Gate
from runtimes.parity.mended import Mended, mended
from runtimes.parity.result import Entry, smallest_passing
from runtimes.parity.verdict import judge

# Gates that any export may be asked to meet, whatever its own precision, strictest first.
LEVELS = (Precision.FP16, Precision.EIGHT_BIT, Precision.LOW_BIT)
# Files of one layout differ by what their metadata say: up to so many times is the same size.
SAME_SIZE = 1.001


@dataclass(frozen=True)
class Cost:
    """What few bits cost one export below 8 bits."""

    export: str
    """Format and variant."""
    mean_kl: AnyFloat
    """Nats."""
    positions: int | None
    """Of how many positions it is, where these are the first of the text; null for all."""
    times_gate: AnyFloat
    """Mean KL over its gate."""
    top1: AnyFloat
    """Share of positions with PyTorch's most likely token."""
    effective_bpw: float
    """Bytes of weights × 8 / parameters."""
    against: str | None
    """The smallest passing export of the same format that has 8 bits or more."""
    saving: float | None
    """Share of that one's bytes that this one saves; below zero where it is larger."""

    @property
    def text(self) -> str:
        """In a sentence."""
        part = f", n = {self.positions:,}" if self.positions is not None else ""
        said = (
            f"{self.export}: mean KL {self.mean_kl:.2g} ({self.times_gate:.1f} × its gate{part}),"
            f" agrees with PyTorch on {100 * self.top1:.0f} % of tokens,"
            f" {self.effective_bpw:.2f} bits per weight"
        )
        if self.saving is None:
            return f"{said}; no export of its format with 8 bits or more passes"
        if self.saving <= 0:
            return f"{said}, and no smaller than {self.against}, which passes"
        return f"{said}, saves {100 * self.saving:.0f} % against {self.against}"


@dataclass(frozen=True)
class Recommendation:
    """For one target, the smallest export that passes its own gates; what ran there comes first."""

    target: str
    """Where it is to run."""
    export: str | None
    """Format and variant, or null where none passes."""
    bytes: int | None
    """Its size."""
    levels: dict[str, str | None]
    """Precision → the smallest passing export that also meets that precision's gates, if any."""
    smaller: tuple[str, ...]
    """Smaller exports for the target, none of which passes; largest first."""
    executed: bool
    """Whether that export was run there; else it was judged by a run elsewhere."""
    elsewhere: str | None
    """Where it was judged instead, in words."""


@dataclass(frozen=True)
class Point:
    """One export's size and damage."""

    export: str
    """Format and variant."""
    bytes: int
    effective_bpw: float
    """Bytes of weights × 8 / parameters."""
    mean_kl: AnyFloat
    """Nats."""
    positions: int | None
    """Of how many positions it is, where these are the first of the text; null for all."""
    dominated_by: str | None
    """The best of those no larger (a thousandth is none) and, on what both have read, no worse;
    null on the front."""
    dominated_in_format: str | None
    """The same among exports of its format."""


@dataclass(frozen=True)
class Advice:
    """What to ship of one model; follows from sizes, estimates and verdicts."""

    recommendations: tuple[Recommendation, ...]
    costs: tuple[Cost, ...]
    """What few bits cost: each export below 8 bits, the best on what all have read first."""
    points: tuple[Point, ...]
    """Size and damage of every export that is not broken, from the smallest to the largest."""
    mended: tuple[Mended, ...]
    """What few bits cost before and after a recovery: each recovered export."""

    @property
    def front(self) -> tuple[Point, ...]:
        """The exports that no other beats, from the smallest to the most exact."""
        return tuple(point for point in self.points if point.dominated_by is None)


def advise(entries: Sequence[Entry]) -> Advice:
    """What the entries of one model say; broken ones are left out."""
    sound = [e for e in entries if e.measurement and e.judgement.verdict is not Verdict.FAIL]
    used = [
        (deployment, [e for e in sound if _format(e) == form and _made_for(e, deployment)])
        for form in known_formats()
        if any(_format(e) == form for e in sound)
        for deployment in _places(form, sound)
    ]
    low = [e for e in sound if _precision(e) is Precision.LOW_BIT]
    return Advice(
        tuple(_recommend(target, found, entries) for target, found in used if found),
        tuple(_cost(entry, sound) for entry in _best_first(low)),
        _points(sound),
        mended(sound),
    )


def _recommend(
    target: Deployment, found: Sequence[Entry], entries: Sequence[Entry]
) -> Recommendation:
    """What was run there counts before what was judged by a run elsewhere."""
    there = [entry for entry in found if _executed(entry, target)]
    best = smallest_passing(there) or smallest_passing(found)
    limit = best.bytes if best else float("inf")
    smaller = [e for e in found if e.bytes < limit]
    levels = {
        level.value: smallest_passing(e for e in found if _meets(e, _gates(level, entries)))
        for level in LEVELS
    }
    run = best.measurement if best else None
    shown = best is not None and best in there
    return Recommendation(
        target.name,
        best.name if best else None,
        best.bytes if best else None,
        {level: entry.name if entry else None for level, entry in levels.items()},
        tuple(e.name for e in sorted(smaller, key=lambda e: -e.bytes)),
        executed=shown,
        elsewhere=f"{run.runtime}, {run.execution.arithmetic}" if run and not shown else None,
    )


def _gates(level: Precision, entries: Iterable[Entry]) -> tuple[Gate, ...]:
    """A level's gates as the run applied them; headroom is asked of what computes in float16."""
    used = next((e.gates for e in entries if _precision(e) is level), GATES[level])
    return tuple(gate for gate in used if gate.metric != HEADROOM.metric)


def _meets(entry: Entry, gates: Sequence[Gate]) -> bool:
    m = entry.measurement
    return m is not None and judge(m.estimates, m.weights, gates, ()).verdict is Verdict.PASS


def _cost(entry: Entry, sound: Sequence[Entry]) -> Cost:
    limit = next(gate.limit for gate in entry.gates if gate.metric == "mean_kl")
    manifest = entry.artifact.manifest
    finer = smallest_passing(
        e
        for e in sound
        if _precision(e) is not Precision.LOW_BIT
        and e.artifact.manifest.variant.format == manifest.variant.format
    )
    return Cost(
        export=entry.name,
        mean_kl=_mean_kl(entry),
        positions=_part(entry),
        times_gate=_mean_kl(entry) / limit,
        top1=_value(entry, "top1"),
        effective_bpw=manifest.effective_bpw,
        against=finer.name if finer else None,
        saving=1 - entry.bytes / finer.bytes if finer else None,
    )


def _points(sound: Sequence[Entry]) -> tuple[Point, ...]:
    points = []
    for entry in sorted(sound, key=lambda e: (e.bytes, _mean_kl(e))):
        variant = entry.artifact.manifest.variant
        mates = [e for e in sound if e.artifact.manifest.variant.format == variant.format]
        points.append(
            Point(
                entry.name,
                entry.bytes,
                entry.artifact.manifest.effective_bpw,
                _mean_kl(entry),
                _part(entry),
                _dominator(entry, sound),
                _dominator(entry, mates),
            )
        )
    return tuple(points)


def _dominator(entry: Entry, others: Iterable[Entry]) -> str | None:
    """The best of those that are no larger and no worse, and not the same in both."""
    better = []
    for other in others:
        own, its = _common_kl((entry, other))
        no_worse = other.bytes <= entry.bytes * SAME_SIZE and its <= own
        if no_worse and (other.bytes * SAME_SIZE < entry.bytes or its < own):
            better.append(other)
    best = next(iter(_best_first(sorted(better, key=lambda e: e.bytes))), None)
    return best.name if best else None


def _best_first(entries: Sequence[Entry]) -> list[Entry]:
    """By mean KL on what all of them have read."""
    ranked = sorted(zip(_common_kl(entries), entries, strict=True), key=lambda pair: pair[0])
    return [entry for _, entry in ranked]


def _common_kl(entries: Sequence[Entry]) -> list[float]:
    """The mean KL of each on the documents that all of them have read."""
    runs = [entry.measurement for entry in entries if entry.measurement]
    common = min((run.looks[-1].documents for run in runs), default=0)
    return [run.kl_of_first(common) for run in runs]


def _part(entry: Entry) -> int | None:
    """How many positions its figures are of, if not the whole text's."""
    run = entry.measurement
    return None if run is None or run.whole_text else run.positions


def _format(entry: Entry) -> str:
    return entry.artifact.manifest.variant.format


def _places(form: str, sound: Iterable[Entry]) -> tuple[Deployment, ...]:
    """Where exports of a format run: the usual places, and those where some of them were run."""
    runs = (e.measurement.execution for e in sound if e.measurement and _format(e) == form)
    apart = {run.place: run.device for run in runs if run.place}
    return (
        *reader(form).deployments,
        *(Deployment(name, None, device, apart=name) for name, device in sorted(apart.items())),
    )


def _made_for(entry: Entry, deployment: Deployment) -> bool:
    """At a place that was asked for, what ran there."""
    if deployment.apart:
        return _executed(entry, deployment)
    return deployment.takes(entry.artifact.manifest.variant.facts)


def _executed(entry: Entry, deployment: Deployment) -> bool:
    run = entry.measurement.execution if entry.measurement else None
    return run is not None and executed(run, deployment)


def _precision(entry: Entry) -> Precision:
    return entry.artifact.manifest.variant.precision


def _mean_kl(entry: Entry) -> float:
    return _value(entry, "mean_kl")


def _value(entry: Entry, metric: str) -> float:
    assert entry.measurement is not None  # `advise` keeps those only
    return entry.measurement.estimates[metric].value
