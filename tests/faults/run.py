"""Run the real parity run over planted faults, and say whether it noticed and found each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeproof.verdicts import Verdict
from runtimes.parity.localise import Cause
from runtimes.parity.result import Entry
from runtimes.parity.run import Extent, Request, run_parity
from runtimes.parity.suite import Suite
from tests.faults.fault import FORMATS, Fault, Finds, Plant
from tests.faults.planting import export

NOTICED = (Verdict.FAIL, Verdict.DEGRADED)
# Artifacts exported and compared at a time: one parity run opens the reference once for them.
BATCH = 6


@dataclass(frozen=True)
class Case:
    """One fault in one format; or, without a fault, a clean export of a `variant`."""

    form: str
    fault: Fault | None = None
    variant: str | None = None

    @property
    def plant(self) -> Plant:
        """What makes the fault."""
        clean = Plant(Finds(Cause.NONE), variant=self.variant)
        return self.fault.plants[self.form] if self.fault else clean

    @property
    def model(self) -> str | None:
        """See `Fault.model`."""
        return self.fault.model if self.fault else None


@dataclass(frozen=True)
class Outcome:
    """What the parity run said of a case."""

    case: Case
    entry: Entry

    @property
    def verdict(self) -> Verdict:
        """The artifact's."""
        return self.entry.judgement.verdict

    @property
    def noticed(self) -> bool:
        """A fault must be noticed, a clean export must not; too little text is no alarm."""
        return (self.verdict in NOTICED) == (self.case.fault is not None)

    @property
    def correct(self) -> bool:
        """Noticed, and found in the right place."""
        found = self.entry.localisation
        located = found is not None and self.case.plant.finds.agrees(found.cause)
        return self.noticed and (self.case.fault is None or located)

    @property
    def where(self) -> str:
        """The localisation in one line; without one, the verdict's reasons."""
        found = self.entry.localisation
        return found.cause.text if found else "; ".join(self.entry.judgement.reasons)


def cases(faults: Sequence[Fault]) -> list[Case]:
    """Every fault in every format that can have it."""
    return [Case(form, fault) for fault in faults for form in FORMATS if form in fault.plants]


def run_cases(
    chosen: Sequence[Case],
    models: Mapping[str | None, Path],
    suite: Suite,
    positions: int | None,
    folder: Path,
    threads: int,
) -> Iterator[Outcome]:
    """Export and compare all cases, some at a time below `folder`, and remove what was exported.

    `models` are checkpoint folders by `Fault.model`.
    """
    for model, checkpoint in models.items():
        wanted = [case for case in chosen if case.model == model]
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            requests = [
                Request(export(checkpoint, case.form, folder / str(index), case.plant).path, False)
                for index, case in enumerate(batch)
            ]
            _, entries = run_parity(
                checkpoint, suite, requests, threads, {}, Extent(positions, footprints=False)
            )
            shutil.rmtree(folder)
            yield from (Outcome(*pair) for pair in zip(batch, entries, strict=True))
