"""The last step of `make size-table`: parity.json of several models as Markdown tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TITLES = (
    "export", "MB", "bits/weight", "fallback", "mean KL", "weights'", "top-1", "clear top-1", "PPL",
    "verdict", "dominated by",
)  # fmt: skip
# Numbers of the runtime's estimates, after mean KL.
METRICS = {"top1": "{:.1%}", "clear_top1": "{:.1%}", "perplexity_ratio": "{:.3f}"}


def tables(report: dict[str, Any]) -> Iterator[str]:
    """Markdown lines: what was measured of each export, then what to ship for each target.

    Raises:
        KeyError: the report is none of the parity runner's.
    """
    yield from _table(TITLES, [_row(item, report["advice"]) for item in report["artifacts"]])
    yield ""
    levels = list(report["advice"]["recommendations"][0]["levels"])
    yield from _table(
        ("target", "ship", *(f"meets {level} gates" for level in levels)),
        [
            (item["target"], _name(item["export"]), *map(_name, item["levels"].values()))
            for item in report["advice"]["recommendations"]
        ],
    )


def _row(entry: dict[str, Any], advice: dict[str, Any]) -> tuple[str, ...]:
    weights, name = entry["weights"], f"{entry['format']} {entry['variant']}"
    facts = (
        f"`{name}`",
        f"{entry['bytes'] / 1e6:.1f}",
        f"{weights['effective_bpw']:.2f}",
        f"{weights['fallback_share']:.0%}",
    )
    if entry["verdict"] == "FAIL":
        return (*facts, *["–"] * (len(TITLES) - len(facts) - 2), "FAIL", "–")
    measured = entry["measurement"]
    estimates, alone = measured["estimates"], measured["weights"]
    point = next(item for item in advice["points"] if item["export"] == name)
    return (
        *facts,
        f"{estimates['mean_kl']['value']:.2g}",
        f"{alone['mean_kl']['value']:.2g}" if alone else "–",
        *(text.format(estimates[metric]["value"]) for metric, text in METRICS.items()),
        entry["verdict"],
        _name(point["dominated_by"]),
    )


def _name(export: str | None) -> str:
    return f"`{export}`" if export else "–"


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    rule = ["---:" if title in TITLES[1:9] else "---" for title in titles]
    for row in (titles, rule, *rows):
        yield f"| {' | '.join(row)} |"


def main() -> None:
    """Print the tables of the reports given; exit 1 if an export failed."""
    reports = [json.loads(Path(path).read_text("utf-8")) for path in sys.argv[1:]]
    for report in reports:
        print(f"## {report['model']}\n", *tables(report), "", sep="\n")
    failed = any(item["verdict"] == "FAIL" for r in reports for item in r["artifacts"])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
