"""Which of several files is closest to the original, and whether the text can tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeproof.verdicts import Verdict
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.intervals import Estimate
from runtimes.parity.result import Entry
from runtimes.parity.statistics import paired_difference

# Where a verdict stands in the order: what is broken is no choice, however close it is.
ORDER = {Verdict.FAIL: 1}
MEAN_KL = "mean_kl"


@dataclass(frozen=True)
class Ranked:
    """One file: its place is that in the list.

    `behind` is how much more KL it has than the first one, on the text that both have read; None of
    the first, and of what was not measured.
    """

    entry: Entry
    kl: Estimate | None
    behind: Estimate | None

    @property
    def apart(self) -> bool:
        """Whether the text tells it from the first one."""
        behind = self.behind
        return behind is not None and behind.known and not behind.low <= 0 <= behind.high


def ranked(
    entries: Sequence[Entry], positions: Mapping[str, Sequence[PositionMetrics]]
) -> list[Ranked]:
    """The least mean KL first, what fails after all that does not.

    `positions` are the metrics of each entry's documents, by its artifact's variant.
    """

    def place(entry: Entry) -> tuple[int, float]:
        kl = _kl(entry)
        return ORDER.get(entry.judgement.verdict, 0), kl.value if kl else float("inf")

    order = sorted(entries, key=place)
    first = positions.get(_key(order[0])) if order else None
    found = []
    for entry in order:
        own = positions.get(_key(entry))
        behind = _behind(first, own) if first and own and entry is not order[0] else None
        found.append(Ranked(entry, _kl(entry), behind))
    return found


def _key(entry: Entry) -> str:
    return entry.artifact.manifest.variant.name


def _kl(entry: Entry) -> Estimate | None:
    return entry.measurement.estimates[MEAN_KL] if entry.measurement else None


def _behind(first: Sequence[PositionMetrics], own: Sequence[PositionMetrics]) -> Estimate:
    """On the first documents, which both have read."""
    count = min(len(first), len(own))
    return paired_difference(first[:count], own[:count])[MEAN_KL]
