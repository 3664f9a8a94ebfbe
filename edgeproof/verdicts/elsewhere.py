"""`elsewhere.json`: short runs of exports in further places where users run them.

It lies beside parity.json, which is about the runtime that read the whole text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeproof import __version__
from edgeproof.display import number
from edgeproof.files.atomic import write_atomic
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema
from edgeproof.verdicts.verdict import Verdict

ELSEWHERE = "elsewhere.json"
AGAIN = " python -m runtimes.parity.elsewhere"
SCHEMA = Schema(current=1, oldest=1, again=f"run again:{AGAIN}", what="a record of short runs")


@dataclass(frozen=True)
class ShortRun:
    """One export in one such place, on a part of the text.

    `manifest` is the SHA-256 of its edgeproof.json; `unseen` is what the whole run left open, in
    the words of parity.json, and this one answers. `mean_kl` and the ends of its interval are in
    nats, None where they do not exist; `positions` are those of `documents` texts.
    """

    format: str
    variant: str
    manifest: str
    unseen: str
    place: str
    runtime: str
    documents: int
    positions: int
    mean_kl: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """What it shows and what it does not, in words."""
        kl, *ends = (_shown(value) for value in (self.mean_kl, self.low, self.high))
        said = f": {'; '.join(self.reasons)}" if self.reasons else ""
        texts = "1 text" if self.documents == 1 else f"{self.documents} texts"
        return (
            f"judged on {self.runtime}, {self.positions} positions of {texts},"
            f" read in one pass: mean KL {kl} [{', '.join(ends)}], {self.verdict.value}{said}."
            f" Replies, batches and long texts were not run there, nor the rest of {self.place}"
        )


def write_short_runs(path: Path, runs: Iterable[ShortRun]) -> None:
    """Write the file, sorted."""
    ordered = sorted(runs, key=lambda run: (run.format, run.variant, run.place))
    data = {
        "schema": SCHEMA.current,
        "edgeproof": __version__,
        "runs": [{**asdict(run), "verdict": run.verdict.value} for run in ordered],
    }
    write_atomic(path, (json.dumps(data, indent=2) + "\n").encode())


def read_short_runs(path: Path) -> tuple[ShortRun, ...]:
    """All of them; none where there is no such file.

    Raises:
        InputError: damaged, or of a newer edgeproof.
    """
    try:
        found = read_own(path, SCHEMA, lambda raw: typed(_ShortRuns, raw, exact=(ShortRun,)))
    except FileNotFoundError:
        return ()
    return found.runs


@dataclass(frozen=True)
class _ShortRuns:
    runs: tuple[ShortRun, ...]


def _shown(value: float | None) -> str:
    return "–" if value is None else number(value)
