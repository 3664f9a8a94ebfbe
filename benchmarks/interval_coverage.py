"""`python -m benchmarks.interval_coverage`: how often intervals hold the truth, as a table.

Texts are simulated whose truth is known; an interval of 95 % should hold it in 95 of 100 texts. A
second table does so for runs that may stop after a part of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np

from benchmarks import sequential_coverage
from benchmarks.simulated_text import SEED, Case, estimate, simulated
from edgeproof.display import markdown_row

TITLES = ("interval", "documents", "truth", "gathering", "holds it", "too good", "too bad")


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
        found = estimate(case, simulated(case, rng))
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


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(1), default=1000, show_default=True)
def main(runs: int) -> None:
    """Simulate every case, print the tables."""
    for line in table(coverage(case, runs) for case in CASES):
        print(line, flush=True)
    print()
    for line in sequential_coverage.table(runs):
        print(line, flush=True)


if __name__ == "__main__":
    main()
