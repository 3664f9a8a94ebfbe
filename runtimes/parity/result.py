"""What a parity run found: one entry per artifact, and all of one model. How it looks: `report`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.verdicts import Verdict
from runtimes.parity.gates import Gate
from runtimes.parity.localise.result import Localisation
from runtimes.parity.measure import Measurement
from runtimes.parity.verdict import Judgement


@dataclass(frozen=True)
class Entry:
    """One artifact's result; `measurement` is None when it could not be opened.

    `localisation` says where it breaks, if anybody asked or it does.
    """

    artifact: Artifact
    allow_degraded: bool
    gates: tuple[Gate, ...]
    judgement: Judgement
    measurement: Measurement | None
    localisation: Localisation | None = None

    @property
    def name(self) -> str:
        """Format and variant, as the tables name it."""
        variant = self.artifact.manifest.variant
        return f"{variant.format} {variant.name}"

    @property
    def accepted(self) -> bool:
        """Whether the plan's requirement is met."""
        return self.judgement.verdict.accepted(allow_degraded=self.allow_degraded)

    @property
    def excused(self) -> bool:
        """Whether it is accepted only because the plan allows what it is."""
        return self.accepted and self.judgement.verdict is not Verdict.PASS

    @property
    def bytes(self) -> int:
        """Size of the whole artifact folder, without the manifest."""
        return sum(item.bytes for item in self.artifact.manifest.outputs)


@dataclass(frozen=True)
class ModelResult:
    """All artifacts of one model, what they were compared with, and where."""

    label: str
    reference: dict[str, Any]
    environment: dict[str, Any]
    entries: tuple[Entry, ...]

    @property
    def accepted(self) -> bool:
        """Whether every artifact meets its requirement."""
        return all(entry.accepted for entry in self.entries)


def smallest_passing(entries: Iterable[Entry]) -> Entry | None:
    """The recommendation: the smallest artifact that passes; None where none does."""
    passing = [entry for entry in entries if entry.judgement.verdict is Verdict.PASS]
    return min(passing, key=lambda entry: entry.bytes, default=None)
