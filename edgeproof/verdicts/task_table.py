"""Scores in tasks as cells of a table, the same in a terminal, a page and a model card."""

from __future__ import annotations

from collections.abc import Sequence

from edgeproof.display import number
from edgeproof.verdicts.evaluation import Score, TaskScore

TITLES = (
    "export", "task", "metric", "score", "PyTorch", "difference", "McNemar p",
    "right → wrong", "wrong → right", "answers changed", "mean KL",
)  # fmt: skip
NONE = "–"
EXPLAINED = (
    "*difference*: the export's score minus PyTorch's on the same questions; *McNemar p*: how often"
    " chance alone would share the questions that only one of them has right at least so unevenly;"
    " *answers changed*: also those that are wrong in both. Brackets are 95 % intervals."
)


def cells(score: TaskScore, mean_kl: float | None) -> tuple[str, ...]:
    """One score's row under `TITLES`; `mean_kl` is the export's in parity.json."""
    beside = score.beside
    metric = score.metric if score.filter == "none" else f"{score.metric} ({score.filter})"
    kl = NONE if mean_kl is None else number(mean_kl)
    first = (score.name, f"{score.task}: {score.asked}", metric, text(score.score))
    if beside is None:
        return (*first, *[NONE] * 6, kl)
    counts = (beside.lost, beside.gained, beside.changed)
    lost, gained, changed = (NONE if count is None else str(count) for count in counts)
    p = NONE if beside.p is None else number(beside.p)
    return (
        *first, text(beside.score), text(beside.difference, sign="+"), p, lost, gained, changed, kl,
    )  # fmt: skip


def run_text(scores: Sequence[TaskScore]) -> str:
    """What ran them, in words."""
    harness = ", ".join(dict.fromkeys(score.harness for score in scores))
    ran = ", ".join(dict.fromkeys(score.runtime for score in scores))
    beside = dict.fromkeys(score.beside.runtime for score in scores if score.beside)
    other = f"; PyTorch: {', '.join(beside)}" if beside else ""
    return f"Asked by EleutherAI's lm-evaluation-harness {harness}, answered in {ran}{other}."


def text(score: Score, sign: str = "") -> str:
    """A score with its interval."""
    value = f"{score.value:{sign}.4g}"
    if score.low is None or score.high is None:
        return value
    return f"{value} [{score.low:{sign}.3g}, {score.high:{sign}.3g}]"
