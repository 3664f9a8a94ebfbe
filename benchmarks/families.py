"""What an export of each family costs beside Llama's, and whether its memory grows with the model.

`python -m benchmarks.families --shape 135M` (also `1.7B`, `4B`) makes a checkpoint of each family
in that size, exports it in each format that the family has, and prints CPU seconds, times Llama's,
and peak memory, which is promised to stay below 1 GB, for MLX below 350 MB. MLX's bf16 is promised
to take at most 1.5 times the CPU seconds of GGUF's f16. With `--sparse` the checkpoint takes no
room. Every export is deleted before the next.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.promises import Promises
from benchmarks.shapes import FAMILIES, SHAPES, make_shape
from edgeproof.families import family as family_of
from export.mlx.definitions import DEFINITIONS
from tests.measured import Cost, measured

ROOT = Path(__file__).parent.parent
PEAK_MB = 1000
FIRST = "llama"
TIMES_GGUF = 1.5


@dataclass(frozen=True)
class Case:
    """An export; `rounded` types are not made of zeros, which no one rounds."""

    form: str
    dtype: str
    rounded: bool = False
    peak_mb: int = PEAK_MB

    def takes(self, family: str) -> bool:
        """Whether the format has the family."""
        if self.form == "mlx":
            return family in DEFINITIONS
        return self.form != "mlc" or family_of(family).mlc is not None


F16, BF16 = Case("gguf", "f16"), Case("mlx", "bf16", peak_mb=350)
CASES = (
    F16, Case("gguf", "q8_0", rounded=True), Case("onnx", "fp16"),
    Case("onnx", "q4", rounded=True), Case("mlc", "q0f16"), Case("mlc", "q4f16_1", rounded=True),
    BF16, Case("mlx", "q4", rounded=True, peak_mb=350),
)  # fmt: skip


@click.command(help=__doc__)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="135M", show_default=True)
@click.option("--family", "families", multiple=True, type=click.Choice(list(FAMILIES)))
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice([c.dtype for c in CASES]))
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True)
@click.option("--sparse", is_flag=True, help="Zeros that take no room; only types not rounded.")
def main(
    shape: str, families: Sequence[str], dtypes: Sequence[str], repeats: int, sparse: bool
) -> None:
    """Measure and print the table; exit 1 where memory was not kept."""
    chosen = [
        case
        for case in CASES
        if not (sparse and case.rounded) and (not dtypes or case.dtype in dtypes)
    ]
    promises, costs, sizes = Promises(), dict[tuple[str, Case], Cost](), dict[str, int]()
    for name in families or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="edgeproof-families-") as temporary:
            folder = Path(temporary) / f"{name}-{shape}"
            sizes[name] = make_shape(folder, name, shape, sparse=sparse)
            for case in chosen:
                if case.takes(name):
                    costs[name, case] = cost = _cost(folder, case, repeats)
                    what = f"{name} {case.form} {case.dtype}"
                    promises.at_most(f"{what}: peak MB", cost.peak_mb, case.peak_mb)
                    print(what, cost, file=sys.stderr, flush=True)
            if {F16, BF16} <= {case for known, case in costs if known == name}:
                times = costs[name, BF16].cpu_seconds / costs[name, F16].cpu_seconds
                promises.at_most(f"{name} mlx bf16: CPU s of gguf f16", times, TIMES_GGUF)
    Console(width=140).print(_table(shape, chosen, costs, sizes))
    for text in promises.missed:
        print(f"missed: {text}")
    sys.exit(1 if promises.missed else 0)


def _cost(checkpoint: Path, case: Case, repeats: int) -> Cost:
    """The run with the lowest CPU time, with the highest memory; nothing is left on the disk."""
    out = checkpoint.parent / "out"
    environment = {**os.environ, "EDGEPROOF_CACHE": str(checkpoint.parent / "cache")}
    command: list[str | Path] = [sys.executable, "-m", f"export.{case.form}", "-m", checkpoint]
    found = []
    for _ in range(repeats):
        found.append(measured([*command, "-d", case.dtype, "-o", out], ROOT, environment))
        shutil.rmtree(out)
    return Cost(min(c.cpu_seconds for c in found), max(c.peak_mb for c in found))


def _table(
    shape: str,
    cases: Sequence[Case],
    costs: Mapping[tuple[str, Case], Cost],
    sizes: Mapping[str, int],
) -> Table:
    table = Table("family", title=f"Exports of {shape}: CPU s (times Llama's), peak MB")
    for column in ("weights, M", *(f"{case.form} {case.dtype}" for case in cases)):
        table.add_column(column, justify="right")
    for name, size in sizes.items():
        cells = [_cell(costs.get((name, case)), costs.get((FIRST, case))) for case in cases]
        table.add_row(name, f"{size / 1e6:.0f}", *cells)
    return table


def _cell(cost: Cost | None, first: Cost | None) -> str:
    if cost is None:
        return "–"
    times = "" if first is None else f" ({cost.cpu_seconds / first.cpu_seconds:.2f})"
    return f"{cost.cpu_seconds:.1f}{times}, {cost.peak_mb:.0f}"


if __name__ == "__main__":
    main()
