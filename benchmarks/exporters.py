"""`make bench`: our exporters beside `optimum-cli export onnx` and gguf-py's own quantisers.

Same checkpoint, same run; llama.cpp's converter is not installed with us, so its figures are
recorded, with how they were obtained.

Whole processes are measured, imports included: CPU seconds (user + system, all threads) and peak
resident memory as the kernel counts them. Ours run three times, the lowest CPU time is shown.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
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


# llama.cpp's converter on the bundled checkpoint: convert_hf_to_gguf.py --outtype TYPE of the
# sources in llama-cpp-python 0.3.36 (vendor/llama.cpp), with torch 2.13.0, transformers 5.23.0 and
# sentencepiece, one run each through tests.measured on a busy machine of 2 cores, Python 3.11.
RECORDED = {"f16": Cost(8.7, 553), "q8_0": Cost(8.4, 530)}
CASES = (
    Case("export.gguf", "f16", 1.2, 350),
    Case("export.gguf", "q8_0", 2.0, 350),
    Case("export.gguf", "q4_0", 2.0, 350),
    Case("export.onnx", "fp16", 2.0, 500),
    Case("export.onnx", "fp32"),
    Case("export.onnx", "q8"),
    Case("export.onnx", "q4"),
    Case("export.mlc", "q0f16", 1.5, 350),
    Case("export.mlc", "q4f16_1", 4.0, 350),
)


def main() -> None:
    """Measure and print the table; exit 1 when a promised figure is missed."""
    checkpoint = resolve("bundled").path
    optimum = optimum_bin() / "optimum-cli"
    table = Table(title=f"Export of {checkpoint.name}", title_justify="left")
    for name in ("command", "CPU s", "target", "peak MB", "target"):
        table.add_column(name, justify="left" if name == "command" else "right")
    missed = False
    ours: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
        for case in CASES:
            command = [sys.executable, "-m", case.module, "--dtype", case.dtype]
            cost = best_of([*command, "--out", folder, "--force"])
            if case.module == "export.gguf":
                ours[case.dtype] = cost
            missed |= cost.cpu_seconds > (case.cpu_target or cost.cpu_seconds)
            missed |= cost.peak_mb > (case.peak_target or cost.peak_mb)
            table.add_row(
                f"python -m {case.module} --dtype {case.dtype}",
                f"{cost.cpu_seconds:.2f}",
                f"{case.cpu_target or ''}",
                f"{cost.peak_mb:.0f}",
                f"{case.peak_target or ''}",
            )
        peers = {
            dtype: best_of(
                [sys.executable, "-m", "benchmarks.gguf_numpy", checkpoint, dtype, f"{folder}/peer"]
            )
            for dtype in ours
        }
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
    Console(width=100).print(table, ratios(ours, peers))
    sys.exit(1 if missed else 0)


def ratios(ours: Mapping[str, Cost], live: Mapping[str, Cost]) -> Table:
    """How many times our CPU time and peak memory a peer needs for the same type."""
    table = Table(title="GGUF: peers against ours (above 1: they need more)", title_justify="left")
    for name in ("peer", "CPU s", "× ours", "peak MB", "× ours"):
        table.add_column(name, justify="left" if name == "peer" else "right")
    peers = {"gguf-py in NumPy, live": live, "llama.cpp's converter, recorded": RECORDED}
    for name, costs in peers.items():
        for dtype, peer in costs.items():
            own = ours[dtype]
            table.add_row(
                f"{dtype}: {name}",
                f"{peer.cpu_seconds:.2f}",
                f"{peer.cpu_seconds / own.cpu_seconds:.1f}",
                f"{peer.peak_mb:.0f}",
                f"{peer.peak_mb / own.peak_mb:.1f}",
            )
    return table


def best_of(command: Sequence[str | Path]) -> Cost:
    """The run with the lowest CPU time of several, with the highest peak memory of all."""
    costs = [measured(command, ROOT) for _ in range(REPEATS)]
    return Cost(min(c.cpu_seconds for c in costs), max(c.peak_mb for c in costs))


if __name__ == "__main__":
    main()
