"""`python -m benchmarks.cluster`: tiny models in all formats on two Dask workers, one of them lost.

A serial run says what has to come out. Then two workers, processes that share no cache, do the same
plan; the first that begins to compare an artifact is killed. What came out is compared field by
field, but for the timed ones, and how often each step was begun is counted. With `--s3` the store
is an S3 server on the loopback (moto), and workers share no folder at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks.differences import reports_differ
from edgeproof.steps.results import attempts
from edgeproof.steps.store import Store, open_store
from tests.dask_cluster import BUCKET, ROOT, Cluster, cluster, s3_server
from tests.tiny import make_checkpoint

PLAN = """
[[variant]]
format = "onnx"
dtype = ["fp32", "fp16", "q8", "q4"]
allow-degraded = true

[[variant]]
format = "gguf"
dtype = ["f32", "f16", "q8_0", "q4_0"]
allow-degraded = true

[[variant]]
format = "mlc"
dtype = ["q0f32", "q0f16", "q4f16_1"]
allow-degraded = true
"""
MLX = """
[[variant]]
format = "mlx"
dtype = ["f32", "q8"]
allow-degraded = true
"""
FAST = ("--budget=fast", "--threads=1", "--no-html")


@click.command()
@click.option("--models", type=click.IntRange(1), default=3, show_default=True)
@click.option("--s3", is_flag=True, help="Through an S3 server on the loopback (moto).")
@click.option("--mlx", is_flag=True, help="MLX too, where it is installed.")
@click.option("--variants", type=click.IntRange(1), help="Only so many dtypes of each format.")
@click.option("--positions", type=click.IntRange(1), help="Compare about so many positions.")
@click.option("--footprint/--no-footprint", default=True, show_default=True)
def main(
    models: int, s3: bool, mlx: bool, variants: int | None, positions: int | None, footprint: bool
) -> None:
    """Serial, then on a cluster; exit code 1 where results differ or a step was done twice."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place = Path(name)
        (place / "plan.toml").write_text(_plan(PLAN + (MLX if mlx else ""), variants))
        tiny = [make_checkpoint(place / f"tiny{n}", seed=n) for n in range(models)]
        # TVM's threads would spin for minutes where other programs have the cores.
        environment = {"TVM_THREAD_POOL_SPIN_COUNT": "100", **os.environ, "PYTHONPATH": str(ROOT)}
        cached = {"EDGEPROOF_CACHE": str(place / "cache")}
        extent = [*FAST, *([] if footprint else ["--no-footprint"])]
        extent += [f"--positions={positions}"] if positions else []
        begin = time.monotonic()
        _serial(place, tiny, environment | cached, extent)
        click.echo(f"serial: export and parity, {time.monotonic() - begin:.0f} s")
        if s3:
            environment |= stack.enter_context(s3_server())
        store = open_store(f"s3://{BUCKET}/steps" if s3 else str(place / "store"))
        made = stack.enter_context(cluster(place / "cluster", environment))
        made.worker("one")
        made.worker("two")
        begin = time.monotonic()
        command = _command(place, tiny, made.address, store, extent)
        with (place / "first.jsonl").open("wb") as log:
            run = subprocess.Popen(command, env=environment | cached, cwd=place, stderr=log)
        killed = _kill(store, run, place / "first.jsonl", made)
        code = run.wait()
        click.echo(f"dask: two workers, one killed, {time.monotonic() - begin:.0f} s, exit {code}")
        _judge(place, store, killed)


def _plan(text: str, variants: int | None) -> str:
    if variants is None:
        return text
    lines = []
    for line in text.splitlines():
        if line.startswith("dtype"):
            names = json.loads(line.partition("=")[2])[:variants]
            lines.append(f"dtype = {json.dumps(names)}")
        else:
            lines.append(line)
    return "\n".join(lines)


def _serial(place: Path, tiny: list[Path], environment: dict[str, str], extent: list[str]) -> None:
    models = [f"--model={path}" for path in tiny]
    export = ["-m", "export", "--plan", str(place / "plan.toml"), *models]
    for command in (export, ["-m", "runtimes.parity", *extent]):
        root = "--out" if command is export else "--root"
        done = subprocess.run(
            [sys.executable, *command, root, str(place / "serial")],
            env=environment, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode > 1:
            sys.exit(done.stderr)


def _command(
    place: Path, tiny: list[Path], address: str, store: Store, extent: list[str]
) -> list[str]:
    models = [f"--model={path}" for path in tiny]
    return [
        sys.executable, "-m", "edgeproof", "run", str(place / "plan.toml"), "--executor=dask",
        f"--scheduler={address}", f"--store={store.url}", *models,
        f"--out={place / 'out'}", *extent,
        "--log-json",
    ]  # fmt: skip


def _kill(store: Store, run: subprocess.Popen[bytes], log: Path, made: Cluster) -> str | None:
    """Kill the first worker that compares an artifact, while it does; that step's key."""
    while run.poll() is None:
        time.sleep(0.2)
        for event in _events(log):
            begun = event.get("event") == "step begun" and event["kind"] == "measure"
            if begun and made.kill_who_does(store, event["key"]):
                return str(event["key"])
    return None


def _events(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text("utf-8", "replace").splitlines():
        if line.startswith("{") and line.endswith("}"):
            yield json.loads(line)


def _judge(place: Path, store: Store, killed: str | None) -> None:
    ended = {e["key"]: e for e in _events(place / "first.jsonl") if e.get("event") == "step ended"}
    if not ended or killed is None:
        shutil.copyfile(place / "first.jsonl", "cluster.jsonl")
        sys.exit("the run did not come so far; see cluster.jsonl")
    counts = {key: len(attempts(store, key)) for key in ended}
    kinds = Counter(event["kind"] for event in ended.values())
    statuses = Counter(event["status"] for event in ended.values())
    click.echo(f"steps: {dict(kinds)}; {dict(statuses)}")
    click.echo(f"begun: {dict(Counter(counts.values()))} (times: steps)")
    twice = {ended[key]["step"] for key, count in counts.items() if count > 1 and key != killed}
    click.echo(
        f"begun twice: {ended[killed]['kind']} {ended[killed]['step']}, whose worker was killed"
    )
    reports = sorted((place / "serial").glob("*/parity.json"))
    different = list(reports_differ(place / "serial", place / "out"))
    artifacts = list((place / "serial").rglob("edgeproof.json"))
    for path in artifacts:
        other = place / "out" / path.relative_to(place / "serial")
        if not other.exists() or other.read_bytes() != path.read_bytes():
            different.append(str(path))
    click.echo(f"{len(reports)} reports, {len(artifacts)} artifacts: {len(different)} differences")
    for line in different[:20]:
        click.echo(f"  {line}")
    if twice:
        click.echo(f"also begun twice: {', '.join(sorted(twice))}")
    sys.exit(1 if different or twice or statuses.keys() - {"done"} else 0)


if __name__ == "__main__":
    main()
