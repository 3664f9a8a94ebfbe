r"""`make recovery-table`: what few bits cost with and without a recovery, in each format.

`python -m benchmarks.recovery_table OUT` recovers the bundled model for each of GOALS, exports it,
compares the files on the whole text, does the same with the plain files of recovery.toml, and
prints all of it as Markdown. CPU seconds are of the recovery, without what the cache had. What OUT
has already is not made again, and has no seconds. Exit 1: a file is broken.

\b
    python -m benchmarks.recovery_table OUT -m bundled-360m --goal any --goal gguf-gate
    python -m benchmarks.recovery_table OUT --goal any -- --tokens 8192 --distill --minutes 30
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from edgeproof.recovery import RECOVERY
from edgeproof.verdicts import REPORT, Compared, Interval, Verdict, read_report

PLAN = Path(__file__).with_name("recovery.toml")
PLAIN = "plain"
TITLES = (
    "file", "bits/weight", "MB", "mean KL", "top-1 %", "clear top-1 %", "acceptance %", "PPL ratio",
    "verdict", "CPU s",
)  # fmt: skip
SHARES = ("top1", "clear_top1", "acceptance")
COMPARE = ("--whole-text", "--no-footprint", "--no-html", "--allow-degraded")


@dataclass(frozen=True)
class Recovered:
    """One recovery and what is exported from it: format and dtypes."""

    name: str
    goal: tuple[str, ...]
    exports: tuple[tuple[str, str], ...]


GOALS = (
    Recovered("gguf-5.0", ("--format", "gguf", "--bits", "5.0"), (("gguf", "auto"),)),
    Recovered("gguf-gate", ("--format", "gguf", "--gate", "4-bit"), (("gguf", "auto"),)),
    Recovered(
        "onnx-gate", ("--format", "onnx", "--gate", "4-bit"), (("onnx", "q4"), ("onnx", "q4f16"))
    ),
    Recovered("any", ("--format", "any"), (("gguf", "auto"), ("onnx", "q4"), ("mlc", "auto"))),
)


@dataclass(frozen=True)
class Row:
    """One file; `seconds` of the processor that making it took, None where it was there."""

    name: str
    found: Compared
    seconds: float | None


@click.command(help=__doc__)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.argument("options", nargs=-1)
@click.option("-m", "--model", default="bundled", show_default=True)
@click.option(
    "--goal",
    "wanted",
    multiple=True,
    type=click.Choice([*(goal.name for goal in GOALS), PLAIN]),
    help="Some of the rows only; may be given again.",
)
def main(out: Path, options: tuple[str, ...], model: str, wanted: tuple[str, ...]) -> None:
    """Make and compare everything, print the table; `options` are those of each recovery."""
    goals = [goal for goal in GOALS if not wanted or goal.name in wanted]
    rows = [row for goal in goals for row in _recovered(out, model, goal, options)]
    if not wanted or PLAIN in wanted:
        rows += _plain(out / PLAIN, model)
    print(*table(rows), sep="\n")
    sys.exit(1 if any(row.found.verdict is Verdict.FAIL for row in rows) else 0)


def _plain(folder: Path, model: str) -> Iterator[Row]:
    if not list(folder.glob(f"*/{REPORT}")):
        _run("export", "--plan", str(PLAN), "-m", model, "--out", str(folder))
        _compare("--root", str(folder))
    for path in folder.glob(f"*/{REPORT}"):
        yield from (Row(item.name, item, None) for item in read_report(path).compared)


def _recovered(out: Path, model: str, goal: Recovered, options: Sequence[str]) -> Iterator[Row]:
    folder = out / goal.name
    checkpoint, report = folder / "checkpoint", folder / REPORT
    seconds = None
    if not (checkpoint / RECOVERY).exists():
        command = ("-m", model, *goal.goal, *options, "-o", str(checkpoint))
        seconds = _run("runtimes.recover", *command)
    if not report.exists():
        for form, dtype in goal.exports:
            command = (f"export.{form}", "-m", str(checkpoint), "--dtype", dtype)
            _run(*command, "--out", str(folder / "out"))
        artifacts = sorted(map(str, (folder / "out").glob("*/*/*/")))
        _compare(*artifacts, "--checkpoint", str(checkpoint), "--json", str(report))
    for item in read_report(report).compared:
        yield Row(f"recovered {goal.name}, {item.name}", item, seconds)


def _compare(*arguments: str) -> None:
    _run("runtimes.parity", *arguments, *COMPARE, codes=(0, 1))


def _run(module: str, *arguments: str, codes: Sequence[int] = (0,)) -> float:
    """CPU seconds of a command, whose own messages go to stderr."""
    before = sum(os.times()[2:4])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=sys.stderr, check=False
    )
    if done.returncode not in codes:
        sys.exit(done.returncode)
    return sum(os.times()[2:4]) - before


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown lines: a row for each file, in the order of its bits."""
    yield _line(TITLES)
    yield _line(["---", *["---:"] * 7, "---", "---:"])
    for row in sorted(rows, key=lambda row: row.found.effective_bpw):
        yield _line(_cells(row))


def _cells(row: Row) -> list[str]:
    found = row.found
    size = [f"`{row.name}`", f"{found.effective_bpw:.2f}", f"{found.bytes / 1e6:.1f}"]
    seconds = "–" if row.seconds is None else f"{row.seconds:.0f}"
    if not found.metrics:
        return [*size, *["–"] * 5, found.verdict.value, seconds]
    return [
        *size,
        _with_interval(found.metrics["mean_kl"], 1, "{:.3g}"),
        *(_with_interval(found.metrics[name], 100, "{:.1f}") for name in SHARES),
        _with_interval(found.metrics["perplexity_ratio"], 1, "{:.3f}"),
        found.verdict.value,
        seconds,
    ]


def _with_interval(found: Interval, factor: float, text: str) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "–" if found.value is None else text.format(factor * found.value)
    value, low, high = (text.format(factor * end) for end in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
