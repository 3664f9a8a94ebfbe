"""Simulated texts whose truth is known: documents differ in how bad an export is at them.

A document's positions follow from that. An interval of 95 % should hold the truth in 95 of 100
texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.intervals import BOOTSTRAP, LEVEL, Estimate, Sample
from runtimes.parity.shares import exact_interval
from runtimes.parity.statistics import draws

SEED = 20240816
LENGTHS = (30, 150)  # positions of a document

# The same for every text of so many documents.
DRAWS = cache(draws)
SHARE = exact_interval(lambda m: m.top1, lambda m: m.clear)
ACCEPTANCE = exact_interval(lambda m: m.acceptance, lambda m: m.clear)


@dataclass(frozen=True)
class Case:
    """Texts of one kind: how many documents, what is true, and how much documents differ.

    `gathering` is the standard deviation of how bad documents are, whose mean is 1. `parts` asks
    for the acceptance, which errs in parts of positions; else whole positions err, or, with a
    `truth` of None, mean KL is asked.
    """

    documents: int
    truth: float | None
    gathering: float
    parts: bool = False

    @property
    def name(self) -> str:
        """What is estimated."""
        if self.truth is None:
            return "bootstrap, mean KL"
        return "exact, parts of positions" if self.parts else "exact, whole positions"


def simulated(case: Case, rng: np.random.Generator) -> list[PositionMetrics]:
    """One text."""
    lengths = rng.integers(*LENGTHS, case.documents)
    badness = np.ones(case.documents)
    if case.gathering:
        variance = case.gathering**2
        badness = rng.gamma(1 / variance, variance, case.documents)
    return [_document(case, int(n), float(b), rng) for n, b in zip(lengths, badness, strict=True)]


def estimate(case: Case, text: list[PositionMetrics], level: float = LEVEL) -> Estimate:
    """What is estimated of a text, or of a part of one."""
    lengths = np.array([len(document.kl) for document in text])
    if case.truth is None:
        sums = np.array([document.kl.sum() for document in text])
        chosen, times = DRAWS(len(text))
        resampled = ((chosen @ sums) / (chosen @ lengths)).repeat(times)
        return BOOTSTRAP.estimate(Sample(float(sums.sum() / lengths.sum()), resampled, text, level))
    kind, shown = (ACCEPTANCE, "acceptance") if case.parts else (SHARE, "top1")
    value = np.concatenate([getattr(document, shown) for document in text]).mean()
    return kind.estimate(Sample(float(value), np.empty(0), text, level))


def _document(case: Case, length: int, badness: float, rng: np.random.Generator) -> PositionMetrics:
    """KL has the mean `badness` and a long tail; errors are as much more frequent."""
    zeros, yes = np.zeros(length), np.ones(length, bool)
    error = 0.0 if case.truth is None else min((1 - case.truth) * badness, 1.0)
    wrong = rng.random(length) < (2 * error if case.parts else error)
    return PositionMetrics(
        kl=badness * rng.lognormal(-0.5, 1.0, length),
        top1=~wrong,
        clear=yes,
        acceptance=1 - wrong * rng.random(length),  # half of a position each, on the average
        nll_reference=zeros,
        nll_export=zeros,
        max_difference=zeros,
        squared_error=zeros,
        squared_signal=zeros,
        best_reference=zeros,
        best_export=zeros,
    )
