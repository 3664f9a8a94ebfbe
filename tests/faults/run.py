"""Run the real parity run over planted faults, and say whether it noticed and found each."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from edgeproof.artifact import Precision
from edgeproof.verdicts import Verdict
from runtimes.parity.localise import Cause
from runtimes.parity.result import Entry
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_parity
from runtimes.parity.suite import Suite
from tests.faults.fault import FORMATS, SIXTEEN_BIT, AtRunTime, Fault, Finds, Plant
from tests.faults.planting import export

NO_FAULT = (Cause.ROUNDING, Cause.NONE)
NOTICED = (Verdict.FAIL, Verdict.DEGRADED)
# Artifacts exported and compared at a time: one parity run opens the reference once for them.
BATCH = 6


@dataclass(frozen=True)
class Case:
    """One fault in one format; or, without a fault, a clean export.

    `variant` is the type to export where it is not the fault's, `on` the model: a family of
    `tests.tiny.FAMILIES`, None for the usual one.
    """

    form: str
    fault: Fault | None = None
    variant: str | None = None
    on: str | None = None

    @property
    def plant(self) -> Plant:
        """What makes the fault."""
        plant = self.fault.plants[self.form] if self.fault else Plant(Finds(Cause.NONE))
        return replace(plant, variant=self.variant) if self.variant else plant

    @property
    def model(self) -> str | None:
        """See `Fault.model`."""
        return self.on or (self.fault.model if self.fault else None)

    @property
    def stored(self) -> str:
        """The type that is exported."""
        return self.plant.variant or SIXTEEN_BIT[self.form]

    @property
    def faulty(self) -> bool:
        """Whether anything is to be noticed."""
        return self.fault is not None and not self.fault.harmless

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Model, format, type and fault in words, "" for the usual model and for no fault."""
        return self.model or "", self.form, self.stored, self.fault.name if self.fault else ""


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
        """A fault must be noticed, a clean export must not; too little text is no alarm.

        What 4 bits cost may be more than the gates allow: there, only a FAIL notices anything.
        """
        low = self.entry.artifact.manifest.variant.precision is Precision.LOW_BIT
        alarms = (Verdict.FAIL,) if low else NOTICED
        return (self.verdict in alarms) == self.case.faulty

    @property
    def correct(self) -> bool:
        """Noticed, and found in the right place; of a clean export nothing is said to be broken."""
        found = self.entry.localisation
        if not self.case.faulty:
            return self.noticed and (found is None or found.cause.cause in NO_FAULT)
        return self.noticed and found is not None and self.case.plant.finds.agrees(found.cause)

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
        for runtime, batch in _batches([case for case in chosen if case.model == model]):
            requests = [
                Request(export(checkpoint, case.form, folder / str(index), case.plant).path, False)
                for index, case in enumerate(batch)
            ]
            with runtime() if runtime else contextlib.nullcontext():
                extent = Extent(positions, footprints=False)
                conditions = Conditions(suite, threads, {}, extent)
                _, entries = run_parity(ParityRun(checkpoint, requests, conditions))
            shutil.rmtree(folder)
            yield from (Outcome(*pair) for pair in zip(batch, entries, strict=True))


def _batches(cases: Sequence[Case]) -> Iterator[tuple[AtRunTime | None, list[Case]]]:
    """Some neighbours at a time, none of which are run in another way than the others."""
    for runtime, group in groupby(cases, lambda case: case.plant.runtime):
        alike = list(group)
        for start in range(0, len(alike), BATCH):
            yield runtime, alike[start : start + BATCH]
