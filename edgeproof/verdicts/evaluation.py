"""`evaluation.json`: how exports did in tasks, beside PyTorch on the same questions.

It lies beside parity.json, which says how far their logits are from PyTorch's. A score is about the
artifact whose `edgeproof.json` has the SHA-256 that it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeproof import __version__
from edgeproof.files.atomic import write_atomic
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema

EVALUATION = "evaluation.json"
SCHEMA = Schema(
    current=2, oldest=1, again="run `edgeproof eval` again", what="a record of an evaluation"
)


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval; the ends are None where it has none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Beside:
    """PyTorch on the same questions.

    `difference` is the export's score minus PyTorch's. Of a share: `lost` questions were right in
    PyTorch only, `gained` in the export only, and `p` is McNemar's exact test of the two. `changed`
    answers are others than PyTorch's, right or wrong. None: not of this metric.
    """

    runtime: str
    score: Score
    difference: Score
    lost: int | None
    gained: int | None
    p: float | None
    changed: int | None


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task, of one export.

    `filter` is the harness's name of how answers were read; `questions` a SHA-256 over them and
    their right answers, `samples` their number, of `total` that the task has. `chat`: through the
    export's own chat template. `harness` and `version` are those of the harness and of the task.
    `settings` says what else was not asked as the task itself says, in words.
    """

    format: str
    variant: str
    manifest: str
    runtime: str
    harness: str
    task: str
    version: str
    metric: str
    filter: str
    higher_is_better: bool
    shots: int
    chat: bool
    questions: str
    samples: int
    total: int
    score: Score
    beside: Beside | None
    settings: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What a later run of it replaces, and the order in the file."""
        return (
            self.format, self.variant, self.manifest, self.task, self.metric, self.filter,
            self.shots, self.chat, self.runtime, self.questions, self.settings,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Format and variant."""
        return f"{self.format} {self.variant}"

    @property
    def asked(self) -> str:
        """How it was asked, in words."""
        questions = f"{self.samples} of {self.total}" if self.samples < self.total else self.samples
        chat = ("chat",) if self.chat else ()
        return ", ".join((f"{questions} questions", f"{self.shots}-shot", *chat, *self.settings))


def write_scores(path: Path, scores: Iterable[TaskScore]) -> None:
    """Write the file, sorted; of those with one key the last."""
    last = {score.key: score for score in scores}
    ordered = [last[key] for key in sorted(last)]
    data = {
        "schema": SCHEMA.current,
        "edgeproof": __version__,
        "scores": [asdict(score) for score in ordered],
    }
    write_atomic(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_scores(path: Path) -> tuple[TaskScore, ...]:
    """All of them; none where there is no such file.

    Raises:
        InputError: damaged, or of a newer edgeproof.
    """
    kinds = (TaskScore, Score, Beside)
    try:
        found = read_own(path, SCHEMA, lambda raw: typed(_Scores, raw, exact=kinds))
    except FileNotFoundError:
        return ()
    return found.scores


def scores_of(scores: Iterable[TaskScore], manifests: Sequence[str]) -> list[TaskScore]:
    """Those of artifacts whose edgeproof.json have these SHA-256, in the artifacts' order."""
    found = list(scores)
    return [score for manifest in manifests for score in found if score.manifest == manifest]


@dataclass(frozen=True)
class _Scores:
    scores: tuple[TaskScore, ...]
