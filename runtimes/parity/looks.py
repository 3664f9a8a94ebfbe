"""Read no more of a text than a bad export needs: looks at growing parts of it.

Whoever looks several times and stops at what he likes is wrong more often than each look says. So
what intervals may leave out is divided (Bonferroni's inequality, which holds however the looks
depend on each other), unequally, as Haybittle and Peto divide it in clinical trials (Haybittle,
"Repeated assessment of results in clinical trials of cancer treatment", 1971): early looks leave
out little, since they only have to see gross damage, so that the last one, of the whole text,
leaves out nearly all of the 5 %. That no look's interval misses the truth is then as likely as it
is for one look alone. A PASS needs the whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.fields import AnyFloat
from runtimes.parity.intervals import LEVEL, Estimate
from runtimes.parity.repeats import counted_once
from runtimes.parity.statistics import summarise
from runtimes.parity.suite import Document

# The least of the first part, and how much more the next one has. Fewer documents do not tell how
# documents differ.
FIRST_POSITIONS, FIRST_DOCUMENTS, GROWTH = 400, 8, 4
# Beyond that share of the text, what is left is read as well.
LARGEST_PART = 0.5
# Of the 5 % that intervals leave out, what those of all early looks do together.
EARLY = 0.005

# Of estimates and hard faults: whether more text would change nothing.
Settled = Callable[[Mapping[str, Estimate], Sequence[str]], bool]


@dataclass(frozen=True)
class Part:
    """The first `documents` of a text, and the level of the intervals there."""

    documents: int
    level: float


@dataclass(frozen=True)
class Look:
    """What a part of the text told of an export."""

    documents: int
    """The first ones of the text."""
    positions: int
    """Of these, those that count."""
    level: float
    """How often intervals there hold the truth; together 95 % for all looks that there may be."""
    mean_kl: AnyFloat
    """Nats: for comparing exports on what all of them have read."""


def parts(reached: np.ndarray, *, whole_text: bool) -> tuple[Part, ...]:
    """Where a text is looked at, the last time at its end; only there if `whole_text`.

    `reached` has the positions that count up to each document's end, as `repeats.reached`.
    """
    ends = [] if whole_text else _early(reached)
    last = LEVEL + EARLY if ends else LEVEL
    early = (Part(end, 1 - EARLY / len(ends)) for end in ends)
    return (*early, Part(len(reached), last))


def _early(reached: np.ndarray) -> list[int]:
    ends: list[int] = []
    wanted, most = FIRST_POSITIONS, LARGEST_PART * reached[-1]
    while wanted <= most:
        end = max(int(np.searchsorted(reached, wanted)) + 1, FIRST_DOCUMENTS)
        if end > len(reached) or reached[end - 1] > most:
            break
        if end not in ends:
            ends.append(end)
        wanted *= GROWTH
    return ends


def stopped_text(positions: int, whole: int) -> str:
    """That no more than so many positions of the whole text were needed, in words."""
    return (
        f"the first {positions:,} of {whole:,} positions decided: all figures are of these"
        " (--whole-text reads on)"
    )


class Looks:
    """The looks at one export's text, while it is read.

    `enough` is asked after each document; it looks where a part ends. `estimates` are those of the
    last look. Where all is settled, nothing more is to be read.
    """

    def __init__(
        self, documents: Sequence[Document], where: Sequence[Part], settled: Settled
    ) -> None:
        self.looks: list[Look] = []
        self.estimates: dict[str, Estimate] = {}
        self._documents, self._settled = documents, settled
        self._levels = {part.documents: part.level for part in where}

    def enough(self, metrics: Sequence[PositionMetrics], failures: Sequence[str]) -> bool:
        """Whether the documents read, with these metrics and hard faults, are enough."""
        count = len(metrics)
        if count not in self._levels:
            return False
        level = self._levels[count]
        counted = counted_once(self._documents[:count], metrics)
        self.estimates = summarise(counted, level)
        positions = sum(len(part.kl) for part in counted)
        look = Look(count, positions, level, self.estimates["mean_kl"].value)
        self.looks.append(look)
        return self._settled(self.estimates, failures)
