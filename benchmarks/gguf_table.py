"""The last step of `make gguf-table`: parity.json as a Markdown table, one row for each type."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SUFFIX = "-imatrix"
METRICS = {"mean_kl": "{:.2g}", "top1": "{:.1%}", "perplexity_ratio": "{:.3f}"}
TITLES = ("type", "MB", "bits/weight", "fallback", "KL", "top-1", "PPL")
IMATRIX_TITLES = ("imatrix: KL", "top-1", "PPL")


def table(report: dict[str, Any]) -> str:
    """Markdown: size, effective bits and fallback share, then the metrics without and with imatrix.

    Raises:
        KeyError: the report is none of the parity runner's.
    """
    entries = {item["variant"]: item for item in report["artifacts"] if item["format"] == "gguf"}
    titles = (*TITLES, *IMATRIX_TITLES)
    rows = [titles, ("---", *["---:"] * (len(titles) - 1))]
    for name, entry in entries.items():
        if not name.endswith(SUFFIX):
            weights = entry["weights"]
            facts = (
                f"`{name}`",
                f"{entry['bytes'] / 1e6:.1f}",
                f"{weights['effective_bpw']:.2f}",
                f"{weights['fallback_share']:.0%}",
            )
            rows.append((*facts, *metrics(entry), *metrics(entries.get(name + SUFFIX))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def metrics(entry: dict[str, Any] | None) -> list[str]:
    """The texts of one artifact's metrics; a dash where it does not exist, FAIL where it failed."""
    if entry is None:
        return ["–"] * len(METRICS)
    if entry["verdict"] == "FAIL":
        return ["FAIL"] * len(METRICS)
    estimates = entry["measurement"]["estimates"]
    return [text.format(estimates[name]["value"]) for name, text in METRICS.items()]


def main() -> None:
    """Print the tables of the reports given; exit 1 if an export failed in llama.cpp."""
    reports = [json.loads(Path(path).read_text("utf-8")) for path in sys.argv[1:]]
    print("\n\n".join(f"{report['model']}\n\n{table(report)}" for report in reports))
    failed = any(item["verdict"] == "FAIL" for r in reports for item in r["artifacts"])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
