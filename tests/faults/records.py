"""What came of a case, kept on disk: a run that was cut off goes on, and the page is made of it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgeproof.verdicts import Verdict
from tests.faults.alarms import ALARMS
from tests.faults.noticed import By, gates_alone, noticed_by
from tests.faults.run import Case, Outcome

ROOT = Path(__file__).parents[2]
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Record:
    """One row of the page. `key` says of what: a run has one of each.

    `gates` is the verdict of the gates alone, None where the artifact did not run. `revision` is
    the code's, `date` the day of the run.
    """

    key: tuple[str, ...]
    verdict: Verdict
    by: tuple[By, ...]
    gates: Verdict | None
    where: str
    right: bool
    mean_kl: float | None
    revision: str
    date: str

    @staticmethod
    def of(outcome: Outcome, revision: str) -> Record:
        """What the page needs of an outcome of today."""
        entry, m = outcome.entry, outcome.entry.measurement
        return Record(
            outcome.case.key,
            outcome.verdict,
            noticed_by(entry),
            gates_alone(entry),
            outcome.where,
            outcome.correct,
            m.estimates["mean_kl"].value if m else None,
            revision,
            today(),
        )


@dataclass(frozen=True)
class Alarms:
    """Verdicts of a clean export on parts of the text, counted."""

    name: str
    verdicts: dict[str, int]
    revision: str
    date: str

    def count(self, verdict: Verdict) -> int:
        """So many runs came out as this."""
        return self.verdicts.get(verdict.value, 0)

    @property
    def false(self) -> int:
        """How many runs said that something is wrong."""
        return sum(map(self.count, ALARMS))


class Records:
    """Rows in a file, one in a line, the newest of a key counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, row: Record | Alarms) -> None:
        """Keep a row."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({type(row).__name__: asdict(row)}) + "\n")

    def cases(self) -> dict[tuple[str, ...], Record]:
        """The rows of cases by their key."""
        rows = (self._record(row) for row in self._rows(Record.__name__))
        return {row.key: row for row in rows}

    def alarms(self) -> dict[str, Alarms]:
        """The rows of clean exports on parts of the text by their name."""
        return {row["name"]: Alarms(**row) for row in self._rows(Alarms.__name__)}

    def of(self, cases: Iterable[Case]) -> list[tuple[Case, Record]]:
        """The cases that have a row, each with it."""
        known = self.cases()
        return [(case, known[case.key]) for case in cases if case.key in known]

    def missing(self, cases: Iterable[Case], revision: str | None) -> list[Case]:
        """The cases without a row; with a revision, also those whose row is of another."""
        known = self.cases()
        return [
            case
            for case in cases
            if case.key not in known or revision not in (None, known[case.key].revision)
        ]

    def tidy(self) -> None:
        """Leave only what counts, in the keys' order."""
        kept: list[Record | Alarms] = [row for _, row in sorted(self.cases().items())]
        kept += [row for _, row in sorted(self.alarms().items())]
        self._path.unlink(missing_ok=True)
        for row in kept:
            self.add(row)

    def _rows(self, kind: str) -> list[dict]:
        if not self._path.exists():
            return []
        lines = map(json.loads, self._path.read_text("utf-8").splitlines())
        return [line[kind] for line in lines if kind in line]

    @staticmethod
    def _record(row: dict) -> Record:
        return Record(
            **{
                **row,
                "key": tuple(row["key"]),
                "verdict": Verdict(row["verdict"]),
                "by": tuple(map(By, row["by"])),
                "gates": Verdict(row["gates"]) if row["gates"] else None,
            }
        )


def alarms(name: str, verdicts: Counter[Verdict], revision: str) -> Alarms:
    """A row of today."""
    return Alarms(name, {verdict.value: n for verdict, n in verdicts.items()}, revision, today())


def today() -> str:
    """The date, as people sort it."""
    return datetime.now(timezone.utc).date().isoformat()


def code_revision() -> str:
    """The commit, with a + where the code that is run is not quite it."""
    try:
        commit = _git("rev-parse", "--short=7", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
