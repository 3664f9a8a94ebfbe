"""`python -m benchmarks.executors`: wall time of a plan, serial and on this machine's cores.

Each begins with an empty store and an empty cache, one after the other; by default the built-in
plan on its real model, which takes minutes. `--tiny` takes a tiny model and a short plan instead.
`serial` does one step after the other, each with as many threads as `local` has workers of one
thread, so that both may use the same cores; `--serial-threads 1` makes their reports comparable
field by field, which then is done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.differences import reports_differ
from edgeproof.processes import QUIETLY, environment
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent
PLAN = """
[[variant]]
format = "onnx"
dtype = ["fp32", "q8"]

[[variant]]
format = "gguf"
dtype = ["f16", "q8_0"]
"""


@click.command()
@click.option("--tiny", is_flag=True, help="A tiny model in four variants.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Of local.")
@click.option(
    "--serial-threads", type=click.IntRange(1), help="Of serial's steps.  [default: WORKERS]"
)
@click.option("--budget", default="default", show_default=True)
@click.option("--footprint/--no-footprint", default=True, show_default=True)
@click.option(
    "--recover/--no-recover",
    default=False,
    show_default=True,
    help="The plan's recovered variants too, which take minutes each.",
)
def main(
    tiny: bool,
    workers: int,
    serial_threads: int | None,
    budget: str,
    footprint: bool,
    recover: bool,
) -> None:
    """Wall seconds, CPU seconds and steps of both, and what of the reports differs."""
    threads = {"serial": serial_threads or workers, "local": 1}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        chosen = [f"--budget={budget}", "--allow-degraded", "--no-html"]
        chosen += [] if footprint else ["--no-footprint"]
        chosen += ["--recover" if recover else "--no-recover"]
        plan = "a tiny model in four variants" if tiny else "the default plan"
        click.echo(f"{plan}: {' '.join(chosen)}")
        if tiny:
            (place / "plan.toml").write_text(PLAN)
            model = make_checkpoint(place / "tiny")
            chosen = [str(place / "plan.toml"), f"--model={model}", *chosen]
        for executor, count in threads.items():
            at_once = 1 if executor == "serial" else workers
            _timed(executor, at_once, count, chosen, place)
        if len({*threads.values()}) == 1:
            different = list(reports_differ(place / "serial", place / "local"))
            click.echo(f"reports: {len(different)} fields differ that are not timed")
            for line in different[:10]:
                click.echo(f"  {line}")


def _timed(executor: str, workers: int, threads: int, chosen: Sequence[str], place: Path) -> None:
    command = [
        sys.executable, "-m", "edgeproof", "run", *chosen, f"--executor={executor}",
        f"--workers={workers}", f"--threads={threads}", f"--out={place / executor}",
    ]  # fmt: skip
    cache = {"EDGEPROOF_CACHE": str(place / f"{executor}-cache")}
    begin, before = time.perf_counter(), _cpu()
    done = subprocess.run(
        command, cwd=place, env={**environment(QUIETLY), "PYTHONPATH": str(ROOT), **cache},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    seconds, used = time.perf_counter() - begin, _cpu() - before
    lines = done.stderr.splitlines()
    told = [line for line in lines if " steps: " in line]
    if done.returncode > 1 or not told:
        sys.exit(done.stderr)
    click.echo(
        f"{executor}, {workers} × {threads} threads: {seconds:.0f} s, {used:.0f} CPU-s,"
        f" exit {done.returncode}; {told[-1]}"
    )
    for line in lines:
        if ": FAILED, " in line:
            click.echo(f"  {line}")


def _cpu() -> float:
    """CPU seconds of processes that have ended, and of those that they had begun."""
    now = os.times()
    return now.children_user + now.children_system


if __name__ == "__main__":
    main()
