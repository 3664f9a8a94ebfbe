"""What the harness's samples say: each question's outcome, and the answer that was given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Metrics of multiple choice → what a choice's log-likelihood is divided by.
LENGTHS = {
    "acc": lambda text: 1.0,
    "acc_norm": lambda text: float(len(text)),
    "acc_bytes": lambda text: float(len(text.encode())),
}

ROUNDING = 1e-9


@dataclass(frozen=True)
class Outcomes:
    """One metric of one task, question by question.

    `values` [n] are numbers, or None where the metric is of all questions together (a perplexity);
    `answers` are comparable texts or numbers, or None where none is told.
    """

    metric: str
    filter: str
    value: float
    values: np.ndarray | None
    answers: tuple[Any, ...] | None
    questions: str
    """SHA-256 over the questions and their right answers."""
    samples: int
    higher_is_better: bool

    @property
    def share(self) -> bool:
        """Whether it is a share of the questions."""
        return self.values is not None and bool(np.isin(self.values, (0.0, 1.0)).all())


def outcomes(name: str, task: Any, results: Mapping[str, Any]) -> list[Outcomes]:
    """Every metric of a task, in the order of the harness's results."""
    samples = results["samples"][name]
    found = []
    for key, value in results["results"][name].items():
        metric, comma, kind = key.partition(",")
        if (
            not comma
            or metric.endswith("_stderr")
            or not isinstance(value, int | float | np.number)
        ):
            continue
        rows = [row for row in samples if row["filter"] == kind and metric in row]
        if rows:
            better = bool(results["higher_is_better"].get(name, {}).get(metric, True))
            found.append(_outcomes(task, metric, kind, float(value), rows, better))
    return found


def pooled(members: Sequence[Sequence[Outcomes]], values: Mapping[str, Any]) -> list[Outcomes]:
    """A group's metrics from its tasks' and the harness's own values, by `metric,filter`.

    Question by question where the value is the mean over all questions of the group; of a mean over
    tasks only the value is told.
    """
    found = []
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        parts = [
            item
            for outcomes in members
            for item in outcomes
            if (item.metric, item.filter) == (metric, kind)
        ]
        if comma and len(parts) == len(members) and isinstance(value, int | float | np.number):
            found.append(_joined(parts, float(value)))
    return found


def _joined(parts: Sequence[Outcomes], value: float) -> Outcomes:
    digest = hashlib.sha256("".join(part.questions for part in parts).encode()).hexdigest()
    values: np.ndarray | None = None
    answers: tuple[Any, ...] | None = None
    if all(part.values is not None for part in parts):
        values = np.concatenate([part.values for part in parts if part.values is not None])
        if abs(float(values.mean()) - value) > ROUNDING:
            values = None
    if all(part.answers is not None for part in parts):
        answers = tuple(answer for part in parts for answer in part.answers or ())
    first, samples = parts[0], sum(part.samples for part in parts)
    return Outcomes(
        first.metric, first.filter, value, values, answers, digest, samples, first.higher_is_better
    )


def _outcomes(
    task: Any, metric: str, kind: str, value: float, rows: Sequence[Mapping[str, Any]], better: bool
) -> Outcomes:
    rows = sorted(rows, key=lambda row: int(row["doc_id"]))
    values = _numbers(row[metric] for row in rows)
    if values is not None and abs(float(values.mean()) - value) > ROUNDING:
        values = None  # of all questions together, not their mean
    given = [_answer(task, metric, row) for row in rows]
    answers = None if any(item is None for item in given) else tuple(given)
    return Outcomes(metric, kind, value, values, answers, _digest(rows), len(rows), better)


def _numbers(found: Iterable[Any]) -> np.ndarray | None:
    numbers = list(found)
    if not all(isinstance(item, bool | int | float | np.number | np.bool_) for item in numbers):
        return None
    return np.array(numbers, np.float64)


def _answer(task: Any, metric: str, row: Mapping[str, Any]) -> Any:
    """The choice taken, the text written, or whether the target is the greedy text."""
    given = row["filtered_resps"]
    if task.OUTPUT_TYPE == "generate_until":
        return str(given[0])
    if task.OUTPUT_TYPE == "loglikelihood":
        return bool(given[0][1])
    if task.OUTPUT_TYPE != "multiple_choice" or metric not in LENGTHS:
        return None
    choices = task.doc_to_choice(row["doc"])
    likely = np.array([pair[0] for pair in given[: len(choices)]], np.float64)
    return int(np.argmax(likely / np.array([LENGTHS[metric](text) for text in choices])))


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        for part in ("doc_hash", "target_hash"):
            digest.update(f"{row[part]}\n".encode())
    return digest.hexdigest()
