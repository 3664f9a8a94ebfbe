"""`python -m benchmarks.executors`: wall time of a plan, serial and on this machine's cores.

Each begins with an empty store and an empty cache, one after the other; by default the built-in
plan on its real model, which takes minutes. `--tiny` takes a tiny model and a short plan instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

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
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--budget", default="default", show_default=True)
@click.option("--no-footprint", is_flag=True, help="Leave out what is alone on the machine.")
def main(tiny: bool, workers: int, budget: str, no_footprint: bool) -> None:
    """Seconds of both, with one thread for each step that measures."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        chosen = []
        if tiny:
            (place / "plan.toml").write_text(PLAN)
            model = make_checkpoint(place / "tiny")
            chosen = [str(place / "plan.toml"), f"--model={model}"]
        for executor in ("serial", "local"):
            command = [
                sys.executable, "-m", "edgeproof", "run", *chosen, f"--executor={executor}",
                f"--workers={workers}", "--threads=1", f"--budget={budget}", "--allow-degraded",
                f"--out={place / executor}", *(["--no-footprint"] if no_footprint else []),
            ]  # fmt: skip
            cache = {"EDGEPROOF_CACHE": str(place / f"{executor}-cache")}
            begin, cpu = time.perf_counter(), os.times()
            done = subprocess.run(
                command, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT), **cache},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            if done.returncode > 1:
                sys.exit(done.stderr)
            seconds, now = time.perf_counter() - begin, os.times()
            used = now.children_user + now.children_system
            used -= cpu.children_user + cpu.children_system
            told = [line for line in done.stderr.splitlines() if " steps: " in line]
            click.echo(f"{executor}: {seconds:.0f} s, {used:.0f} CPU-s; {told[-1]}")


if __name__ == "__main__":
    main()
