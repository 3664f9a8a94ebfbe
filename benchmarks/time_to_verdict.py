"""`make bench-time`: where the seconds of `make export-all` go, with every cache empty.

`python -m benchmarks.time_to_verdict [OPTION …]` exports the default plan of the bundled model and
compares it, as `make export-all` does and as processes of their own; options go to the comparison
(`--budget fast`; with `--recover` the plan's recovered variants are made and compared after the
others). Wall time and CPU seconds of each phase are the run's own (`runtimes.parity`'s events
"spent"); what is in none is starting Python, intervals and reports. Exit 1 when a promised figure
is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.promises import Promises
from runtimes.load import Meter, disturbed
from runtimes.parity.stages import Spent

REFERENCE = "reference"
# Seconds on two idle cores: with AVX-512, and with AVX2 only; and of the reference on the latter.
TARGET, TARGET_AVX2, REFERENCE_TARGET = 360.0, 540.0, 60.0
# The recovered variants: making and comparing them, on two idle cores.
RECOVERED_TARGET = 360.0
RECOVERY = "recovery"
CPU_INFO = Path("/proc/cpuinfo")
BUSY = "other programs took {:.1f} cores meanwhile: all seconds are too long"


def main() -> None:
    """Export, compare, print the table and what was missed."""
    promises, console = Promises(), Console(width=150)
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
        cache, out = Path(folder, "cache"), Path(folder, "out")
        environment = os.environ | {"EDGEPROOF_CACHE": str(cache)}
        meter, begin = Meter(), time.perf_counter()
        recovering = "--recover" in sys.argv
        export = [sys.executable, "-m", "export", "--out", str(out)]
        export += [] if recovering else ["--no-recover"]
        subprocess.run(export, env=environment, check=True, stdout=subprocess.DEVNULL)
        exported = time.perf_counter() - begin
        parity = [sys.executable, "-m", "runtimes.parity", "--root", str(out), "--log-json"]
        spent, code = _run([*parity, *sys.argv[1:]], environment)
        whole, load = time.perf_counter() - begin, meter.load()
    console.print(table(spent))
    first = [item.subject for item in spent].index(RECOVERY) if recovering else len(spent)
    of_recovery = sum(item.seconds for item in spent[first:])
    of_reference = sum(item.seconds for item in spent[:first] if item.subject == REFERENCE)
    told = sum(item.seconds for item in spent)
    limit = TARGET if "avx512f" in _flags() else TARGET_AVX2
    console.print(
        f"export {exported:.0f} s, compare {whole - exported:.0f} s, in no phase"
        f" {whole - exported - told:.0f} s; exit code {code}"
    )
    if recovering:
        cpu = sum(item.cpu_seconds for item in spent[first:])
        kept = promises.at_most("recovered", of_recovery, RECOVERED_TARGET)
        console.print(f"recovered: {of_recovery:.0f} s, {cpu:.0f} CPU s ({kept})")
    for what, seconds, most in (
        ("all others" if recovering else "all", whole - of_recovery, limit),
        (REFERENCE, of_reference, REFERENCE_TARGET),
    ):
        console.print(f"{what}: {seconds:.0f} s ({promises.at_most(what, seconds, most)})")
    # The processes of this run have ended: their own part of what the machine did is known.
    own = sum(os.times()[2:4]) / load.seconds
    others = None if load.others is None else load.others - own
    cores = os.cpu_count() or 1
    if disturbed(others, cores, cores):
        console.print(BUSY.format(others))
    sys.exit(1 if promises.missed else 0)


def _run(command: Sequence[str], environment: dict[str, str]) -> tuple[list[Spent], int]:
    """Run the comparison: its phases and its exit code; what else it says goes to stderr."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        return list(phases(run.stderr)), run.wait()


def phases(lines: Iterable[str]) -> Iterable[Spent]:
    """The phases among the lines of a log, as they end; what is no event goes to stderr."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            sys.stderr.write(line)
            continue
        if isinstance(event, dict) and event.get("event") == "spent":
            yield Spent(*(event[name] for name in Spent.__dataclass_fields__))


def table(spent: Sequence[Spent]) -> Table:
    """Seconds by subject and phase, and of each the sum; CPU seconds of each subject last."""
    cells: dict[tuple[str, str], float] = defaultdict(float)
    cpu: dict[str, float] = defaultdict(float)
    for item in spent:
        cells[item.subject, item.phase] += item.seconds
        cpu[item.subject] += item.cpu_seconds
    columns = list(dict.fromkeys(item.phase for item in spent))
    found = Table("seconds", title="Time to a verdict", title_justify="left")
    for name in (*columns, "all", "CPU s"):
        found.add_column(name, justify="right")
    for subject, processor in cpu.items():
        values = [cells[subject, name] for name in columns]
        found.add_row(subject, *map(_cell, (*values, sum(values), processor)))
    sums = [sum(cells[subject, name] for subject in cpu) for name in columns]
    found.add_section()
    found.add_row("all", *map(_cell, (*sums, sum(sums), sum(cpu.values()))))
    return found


def _cell(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 0.05 else ""


def _flags() -> set[str]:
    """What the processor can, where Linux says so."""
    return set(CPU_INFO.read_text("utf-8").split()) if CPU_INFO.exists() else set()


if __name__ == "__main__":
    main()
