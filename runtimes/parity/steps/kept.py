"""One artifact's result as a file: what a report needs of it, exactly, on another machine.

`parity.json` has no NaN and no infinity; here they stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from edgeproof.artifact import Artifact
from edgeproof.files.own import typed
from runtimes.parity.environment import Environment
from runtimes.parity.exact_json import from_exact, to_exact
from runtimes.parity.gates import Gate
from runtimes.parity.localise.result import Localisation
from runtimes.parity.measure import Measurement
from runtimes.parity.result import Entry, RecoveredFrom, ReferenceFacts
from runtimes.parity.steps.places import with_folders, with_names
from runtimes.parity.verdict import Judgement

RESULT = "result.json"


@dataclass(frozen=True)
class KeptEntry:
    """An `Entry` without its artifact, what it was compared with, and where."""

    reference: ReferenceFacts
    environment: Environment
    gates: tuple[Gate, ...]
    judgement: Judgement
    measurement: Measurement | None
    localisation: Localisation | None
    recovered: RecoveredFrom | None

    def entry(self, artifact: Artifact, *, allow_degraded: bool) -> Entry:
        """The entry of the artifact that it was measured on."""
        return Entry(
            artifact,
            allow_degraded,
            self.gates,
            self.judgement,
            self.measurement,
            self.localisation,
            self.recovered,
        )


def kept(reference: ReferenceFacts, environment: Environment, entry: Entry) -> KeptEntry:
    """What is kept of an entry."""
    return KeptEntry(
        reference,
        environment,
        entry.gates,
        entry.judgement,
        entry.measurement,
        entry.localisation,
        entry.recovered,
    )


def to_text(value: KeptEntry, places: Mapping[str, str]) -> str:
    """As JSON, with names in the places of folders of this machine."""
    return to_exact(asdict(with_names(value, places)))


def from_text(text: bytes, places: Mapping[str, str]) -> KeptEntry:
    """What `to_text` wrote, with what its names stand for here.

    Raises:
        WrongJsonError: it is something else.
    """
    return with_folders(typed(KeptEntry, from_exact(text)), places)
