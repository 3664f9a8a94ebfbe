"""`make bench`: our exporters beside `optimum-cli export onnx`, same checkpoint, same run.

Whole processes are measured, imports included: CPU seconds (user + system, all threads) and peak
resident memory as the kernel counts them. Ours run three times, the lowest CPU time is shown.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.onnx.traced.environment import optimum_bin
from export.sources import resolve
from tests.measured import Cost, measured

ROOT = Path(__file__).parent.parent
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """One exporter with its target, if the project promises one (CPU seconds, MB)."""

    module: str
    dtype: str
    cpu_target: float | None = None
    peak_target: float | None = None


CASES = (
    Case("export.gguf", "f16", 1.5, 500),
    Case("export.gguf", "q8_0"),
    Case("export.gguf", "q4_0"),
    Case("export.onnx", "fp16", 2.0, 500),
    Case("export.onnx", "fp32"),
    Case("export.mlc", "q0f16"),
    Case("export.mlc", "q4f16_1"),
)


def main() -> None:
    """Measure and print the table; exit 1 when a promised figure is missed."""
    checkpoint = resolve("bundled").path
    optimum = optimum_bin() / "optimum-cli"
    table = Table(title=f"Export of {checkpoint.name}", title_justify="left")
    for name in ("command", "CPU s", "target", "peak MB", "target"):
        table.add_column(name, justify="left" if name == "command" else "right")
    missed = False
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
        for case in CASES:
            cost = best_of(case, Path(folder))
            missed |= cost.cpu_seconds > (case.cpu_target or cost.cpu_seconds)
            missed |= cost.peak_mb > (case.peak_target or cost.peak_mb)
            table.add_row(
                f"python -m {case.module} --dtype {case.dtype}",
                f"{cost.cpu_seconds:.2f}",
                f"{case.cpu_target or ''}",
                f"{cost.peak_mb:.0f}",
                f"{case.peak_target or ''}",
            )
        peer = [optimum, "export", "onnx", "--model", checkpoint, Path(folder) / "optimum"]
        peer += ["--task", "text-generation-with-past"]
        cost = measured(peer, ROOT)
        table.add_row(
            "optimum-cli export onnx (fp32)",
            f"{cost.cpu_seconds:.2f}",
            "",
            f"{cost.peak_mb:.0f}",
            "",
        )
    Console(width=100).print(table)
    sys.exit(1 if missed else 0)


def best_of(case: Case, folder: Path) -> Cost:
    """The run with the lowest CPU time of several, with the highest peak memory of all."""
    command = [
        sys.executable, "-m", case.module, "--dtype", case.dtype, "--out", folder, "--force",
    ]  # fmt: skip
    costs = [measured(command, ROOT) for _ in range(REPEATS)]
    return Cost(min(c.cpu_seconds for c in costs), max(c.peak_mb for c in costs))


if __name__ == "__main__":
    main()
