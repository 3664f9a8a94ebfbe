"""`python -m benchmarks.interval_coverage`: how often intervals hold the truth, as a table.

Texts are simulated whose truth is known: documents differ in how bad an export is at them, and
their positions follow from that. An interval of 95 % should hold the truth in 95 of 100 texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np

from edgeproof.display import markdown_row
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.intervals import BOOTSTRAP, Estimate, Sample
from runtimes.parity.shares import exact_interval
from runtimes.parity.statistics import draws

SEED = 20240816
LENGTHS = (30, 150)  # positions of a document
TITLES = ("interval", "documents", "truth", "gathering", "holds it", "too good", "too bad")

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


@dataclass(frozen=True)
class Coverage:
    """Shares of the texts whose interval holds the truth, is above all of it, is below all of it.

    `good` and `bad` are the two ways to miss: the export looks better or worse than it is.
    """

    case: Case
    held: float
    good: float
    bad: float


CASES = (
    *(Case(n, None, gathering) for n in (3, 5, 8, 20, 58) for gathering in (0.5, 1.0)),
    *(
        Case(n, truth, gathering)
        for n in (3, 8, 58)
        for truth in (0.9995, 0.95)
        for gathering in (0.0, 1.0)
    ),
    *(Case(n, 0.97, 1.0, parts=True) for n in (8, 58)),
)


def coverage(case: Case, runs: int) -> Coverage:
    """Simulate so many texts of a kind."""
    rng = np.random.default_rng(SEED)
    truth = 1.0 if case.truth is None else case.truth
    held = above = below = 0
    for _ in range(runs):
        found = _estimate(case, _text(case, rng))
        held += found.low <= truth <= found.high
        above += found.low > truth
        below += found.high < truth
    good, bad = (below, above) if case.truth is None else (above, below)
    return Coverage(case, held / runs, good / runs, bad / runs)


def table(found: Iterator[Coverage]) -> Iterator[str]:
    """Markdown lines."""
    yield markdown_row(TITLES)
    yield markdown_row(("---", *["---:"] * (len(TITLES) - 1)))
    for item in found:
        case = item.case
        truth = "–" if case.truth is None else f"{100 * case.truth:g} %"
        shares = (f"{100 * share:.1f} %" for share in (item.held, item.good, item.bad))
        yield markdown_row((case.name, f"{case.documents}", truth, f"{case.gathering:g}", *shares))


def _text(case: Case, rng: np.random.Generator) -> list[PositionMetrics]:
    lengths = rng.integers(*LENGTHS, case.documents)
    badness = np.ones(case.documents)
    if case.gathering:
        variance = case.gathering**2
        badness = rng.gamma(1 / variance, variance, case.documents)
    return [_document(case, int(n), float(b), rng) for n, b in zip(lengths, badness, strict=True)]


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


def _estimate(case: Case, text: list[PositionMetrics]) -> Estimate:
    lengths = np.array([len(document.kl) for document in text])
    if case.truth is None:
        sums = np.array([document.kl.sum() for document in text])
        chosen, times = draws(len(text))
        resampled = ((chosen @ sums) / (chosen @ lengths)).repeat(times)
        return BOOTSTRAP.estimate(Sample(float(sums.sum() / lengths.sum()), resampled, text))
    kind, shown = (ACCEPTANCE, "acceptance") if case.parts else (SHARE, "top1")
    value = np.concatenate([getattr(document, shown) for document in text]).mean()
    return kind.estimate(Sample(float(value), np.empty(0), text))


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(1), default=1000, show_default=True)
def main(runs: int) -> None:
    """Simulate every case, print the table."""
    for line in table(coverage(case, runs) for case in CASES):
        print(line, flush=True)


if __name__ == "__main__":
    main()
