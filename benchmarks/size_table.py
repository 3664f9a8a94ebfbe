"""The last step of `make size-table`: parity.json of several models as Markdown tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from edgeproof.verdicts import Compared, ParityReport, Verdict, read_report

TITLES = (
    "export", "MB", "bits/weight", "fallback", "mean KL", "weights'", "top-1", "clear top-1", "PPL",
    "verdict", "dominated by",
)  # fmt: skip
# Numbers of the runtime's estimates, after mean KL.
METRICS = {"top1": "{:.1%}", "clear_top1": "{:.1%}", "perplexity_ratio": "{:.3f}"}


def tables(report: ParityReport) -> Iterator[str]:
    """Markdown lines: what was measured of each export, then what to ship for each target.

    Raises:
        KeyError: the report lacks one of METRICS.
    """
    yield from _table(
        TITLES, [_row(item, report.dominated_by.get(item.name)) for item in report.compared]
    )
    yield ""
    levels = list(report.recommendations[0].levels)
    yield from _table(
        ("target", "ship", *(f"meets {level} gates" for level in levels)),
        [
            (item.target, _name(item.export), *map(_name, item.levels.values()))
            for item in report.recommendations
        ],
    )


def _row(entry: Compared, dominated_by: str | None) -> tuple[str, ...]:
    facts = (
        f"`{entry.name}`",
        f"{entry.bytes / 1e6:.1f}",
        f"{entry.effective_bpw:.2f}",
        f"{entry.fallback_share:.0%}",
    )
    if entry.verdict is Verdict.FAIL:
        return (*facts, *["–"] * (len(TITLES) - len(facts) - 2), "FAIL", "–")
    alone = entry.of_weights
    return (
        *facts,
        f"{entry.metrics['mean_kl'].value:.2g}",
        f"{alone['mean_kl'].value:.2g}" if alone else "–",
        *(text.format(entry.metrics[metric].value) for metric, text in METRICS.items()),
        entry.verdict.value,
        _name(dominated_by),
    )


def _name(export: str | None) -> str:
    return f"`{export}`" if export else "–"


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    rule = ["---:" if title in TITLES[1:9] else "---" for title in titles]
    for row in (titles, rule, *rows):
        yield f"| {' | '.join(row)} |"


def main() -> None:
    """Print the tables of the reports given; exit 1 if an export failed."""
    reports = [read_report(Path(path)) for path in sys.argv[1:]]
    for report in reports:
        print(f"## {report.model}\n", *tables(report), "", sep="\n")
    failed = any(item.verdict is Verdict.FAIL for report in reports for item in report.compared)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
