"""The last step of `make gguf-table`: parity.json as a Markdown table, one row for each type."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeproof.verdicts import Compared, ParityReport, Verdict, read_report

SUFFIX = "-imatrix"
METRICS = {"mean_kl": "{:.2g}", "top1": "{:.1%}", "perplexity_ratio": "{:.3f}"}
TITLES = ("type", "MB", "bits/weight", "fallback", "KL", "top-1", "PPL")
IMATRIX_TITLES = ("imatrix: KL", "top-1", "PPL")


def table(report: ParityReport) -> str:
    """Markdown: size, effective bits and fallback share, then the metrics without and with imatrix.

    Raises:
        KeyError: the report lacks one of METRICS.
    """
    entries = {item.variant: item for item in report.compared if item.format == "gguf"}
    titles = (*TITLES, *IMATRIX_TITLES)
    rows = [titles, ("---", *["---:"] * (len(titles) - 1))]
    for name, entry in entries.items():
        if not name.endswith(SUFFIX):
            facts = (
                f"`{name}`",
                f"{entry.bytes / 1e6:.1f}",
                f"{entry.effective_bpw:.2f}",
                f"{entry.fallback_share:.0%}",
            )
            rows.append((*facts, *metrics(entry), *metrics(entries.get(name + SUFFIX))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def metrics(entry: Compared | None) -> list[str]:
    """The texts of one artifact's metrics; a dash where it does not exist, FAIL where it failed."""
    if entry is None:
        return ["–"] * len(METRICS)
    if entry.verdict is Verdict.FAIL:
        return ["FAIL"] * len(METRICS)
    return [text.format(entry.metrics[name].value) for name, text in METRICS.items()]


def main() -> None:
    """Print the tables of the reports given; exit 1 if an export failed in llama.cpp."""
    reports = [read_report(Path(path)) for path in sys.argv[1:]]
    print("\n\n".join(f"{report.model}\n\n{table(report)}" for report in reports))
    failed = any(item.verdict is Verdict.FAIL for report in reports for item in report.compared)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
