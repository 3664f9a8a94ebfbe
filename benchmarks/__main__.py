"""`make bench`: what exporting costs, how large the files are, how fast the graphs run.

`python -m benchmarks [FOLDER]` keeps everything that was exported in FOLDER; exit 1 when a promised
figure is missed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.decode import speed_tables
from benchmarks.exporters import cost_tables
from benchmarks.promises import Promises
from export.sources import resolve


def main() -> None:
    """Measure, print the tables, then what was missed."""
    promises, console = Promises(), Console(width=120)
    checkpoint = resolve("bundled").path
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        for measure in (cost_tables, speed_tables):
            console.print(*measure(checkpoint, folder, promises))
    for text in promises.missed:
        console.print(f"missed: {text}", highlight=False)
    sys.exit(1 if promises.missed else 0)


if __name__ == "__main__":
    main()
