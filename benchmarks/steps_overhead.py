"""`python -m benchmarks.steps_overhead`: what a step costs that does nothing, on many Dask workers.

40 workers are threads of this process, and each has one step at a time; a step neither begins a
process nor measures. With the store it looks for its result, notes that it begins and keeps one, as
every step does. The difference between the two is the store's, the rest Dask's and ours.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgeproof.files.hashing import OutputFile
from edgeproof.steps.executors.cluster import DaskExecutor
from edgeproof.steps.executors.executor import Ended
from edgeproof.steps.results import Result, find, keep, note_attempt
from edgeproof.steps.step import Kind, Step, read_step
from edgeproof.steps.store import open_store
from edgeproof.steps.work import Outcome

CHAIN = (Kind.EXPORT, Kind.FOOTPRINT, Kind.MEASURE)


@click.command()
@click.option("--steps", type=click.IntRange(3), default=600, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=40, show_default=True)
def main(steps: int, workers: int) -> None:
    """Seconds for all and milliseconds for each step, of exports and what follows from each."""
    from distributed import Client, LocalCluster

    click.echo(f"{steps} steps that do nothing, {workers} workers")
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        address = client.scheduler.address
        for name, work in (("without a store", _nothing), ("with a store", _stored)):
            store = str(Path(folder) / name)
            seconds, cpu = _run(
                DaskExecutor(store, address, 0, _silent, work), _chains(steps, name)
            )
            click.echo(
                f"{name}: {seconds:.2f} s, {1000 * seconds / steps:.2f} ms and"
                f" {1000 * cpu / steps:.2f} CPU-ms per step"
            )


def _silent(text: str) -> None:
    pass


def _run(executor: DaskExecutor, steps: Sequence[Step]) -> tuple[float, float]:
    """Seconds and CPU seconds, of scheduler and workers too: all are of this process."""
    begin, cpu, left = time.perf_counter(), time.process_time(), len(steps)
    for event in executor.run(steps):
        if isinstance(event, Ended):
            left -= 1
            if event.outcome.failed is not None:
                sys.exit(event.outcome.failed)
    assert not left
    return time.perf_counter() - begin, time.process_time() - cpu


def _chains(count: int, name: str) -> list[Step]:
    chains: list[list[Step]] = [[] for _ in CHAIN]
    for number in range(-(-count // len(CHAIN))):
        inputs: dict[str, str] = {}
        params: dict[str, Any] = {"number": number, "name": name}
        for kind, found in zip(CHAIN, chains, strict=True):
            step = Step(kind, str(number), "model", "none", params, inputs, {}, {})
            found.append(step)
            inputs = {"before": step.key}
    return [step for chain in chains for step in chain][:count]


def _nothing(step: str, store: str, before: Sequence[str], rests: Sequence[str]) -> str:
    return Outcome(read_step(step).key).text


def _stored(step: str, store: str, before: Sequence[str], rests: Sequence[str]) -> str:
    asked, place = read_step(step), open_store(store)
    if find(place, asked.key) is None:
        note_attempt(place, asked.key, "one", "here")
        files: tuple[OutputFile, ...] = ()
        keep(place, asked.key, Result(asked.kind, "", files, "here", 0.0), Path(), take=False)
    return Outcome(asked.key).text


if __name__ == "__main__":
    main()
