"""`python -m runtimes.parity.elsewhere`: exports where users run them and the whole run did not.

An ONNX export for WebGPU is read on the CPU, where float16 is computed as float32. Here it reads a
few texts on WebGPU, each in one pass: that its numbers neither overflow nor drift shows in
hundreds of positions; what shows in replies, batches and long texts does not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import click

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, load_run_record
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import GateError, InputError
from edgeproof.verdicts import ELSEWHERE, ShortRun, Verdict, read_short_runs, write_short_runs
from runtimes.computing import ON_CPU
from runtimes.footprint import Crash, footprint
from runtimes.formats import Deployment, reader_of
from runtimes.parity.execution import executed, unseen
from runtimes.parity.gates import gates_for
from runtimes.parity.inputs import check_current, recorded_inputs
from runtimes.parity.original import original_inputs, original_of
from runtimes.parity.reference import Reference, load_reference
from runtimes.parity.repeats import counted_once
from runtimes.parity.replay import replay
from runtimes.parity.statistics import summarise
from runtimes.parity.text_options import chosen_suite
from runtimes.parity.verdict import Judgement, judge
from runtimes.registry import open_reference, open_runtime
from runtimes.threads import threads_option

POSITIONS, SECONDS = 200, 120


@dataclass(frozen=True)
class Elsewhere:
    """An export, a place that its whole run left open, and the runtime here that answers it."""

    artifact: Artifact
    allow_degraded: bool
    place: Deployment
    runtime: str
    unseen: str


def left_open(
    artifact: Artifact, *, allow_degraded: bool, ran_in: str | None = None
) -> Iterator[Elsewhere]:
    """What can be run here of what the runtime that it `ran_in` does not show, or its usual one."""
    others = reader_of(artifact).others
    for place, text in unseen(artifact, ran_in):
        for name, adapter in others.items():
            if adapter.in_process and executed(adapter, place):
                yield Elsewhere(artifact, allow_degraded, place, name, text)


def run_short(
    asked: Elsewhere,
    reference: Reference,
    limits: Mapping[str, Mapping[str, float]],
    seconds: float,
    threads: int,
) -> ShortRun:
    """Read texts in their order until the time is over, at least one of them.

    What crashes or gives no numbers is a FAIL.

    Raises:
        InputError: there is no such device here, or its packages are missing.
    """
    artifact = asked.artifact
    variant, manifest = artifact.manifest.variant, artifact.sha256
    gates = gates_for(variant.precision, limits, asked.runtime)
    run = ShortRun(
        variant.format, variant.name, manifest, asked.unseen, asked.place.name, asked.runtime,
        0, 0, None, None, None, Verdict.FAIL, (),
    )  # fmt: skip
    try:  # in a process of its own first: a driver may crash over it
        footprint(artifact, threads, asked.runtime, brief=True)
    except Crash as error:
        return replace(run, reasons=(str(error),))
    runtime = open_runtime(artifact, threads, asked.runtime)
    metrics, failures = [], []
    end = time.monotonic() + seconds
    try:
        for document, hidden in zip(reference.documents, reference.hidden, strict=True):
            part = replace(reference, documents=(document,), hidden=(hidden,))
            found = replay(part, runtime.logit_blocks, threads, lambda: None)
            metrics += found.metrics
            failures += found.failures
            if time.monotonic() > end:
                break
        name = f"{runtime.name} {runtime.version} ({runtime.device})"
    finally:
        runtime.close()
    documents = reference.documents[: len(metrics)]
    counted = counted_once(documents, metrics)
    estimates = summarise(counted)
    # No gate of the weights alone, nor headroom: what the whole run said of them stays
    known = [gate for gate in gates if not gate.of_weights and gate.metric in estimates]
    judgement: Judgement = judge(estimates, None, known, failures)
    kl = estimates["mean_kl"]
    return replace(
        run,
        runtime=name,
        documents=len(documents),
        positions=sum(len(part.kl) for part in counted),
        mean_kl=_number(kl.value),
        low=_number(kl.low),
        high=_number(kl.high),
        verdict=judgement.verdict,
        reasons=judgement.reasons,
    )


@click.command(cls=EdgeproofCommand, name="elsewhere")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path), default=Path("artifacts"))
@click.option("--positions", type=click.IntRange(1), default=POSITIONS, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=SECONDS, show_default=True)
@click.option("--budget", default="default", show_default=True, help="The compared text's.")
@threads_option
def main(root: Path, positions: int, seconds: int, budget: str, threads: int) -> None:
    """Run exports briefly where their users run them and the comparison did not: on WebGPU.

    What the last export made in ROOT is read on about so many positions, at most so many seconds
    for each export, and goes into ROOT/<model>/elsewhere.json, which a release's model cards show.
    Where there is no such device, that is said and nothing is written. Exit code 1: an export is
    broken there, or not as good as its plan allows.
    """
    record = load_run_record(root)
    refused = []
    for model in record.models:
        path = root / model.label / ELSEWHERE
        known = {(run.manifest, run.place): run for run in read_short_runs(path)}
        runs = []
        for asked, reference in _with_references(root, model, budget, positions, threads):
            key = (asked.artifact.sha256, asked.place.name)
            name = f"{asked.artifact.path} in {asked.place.name}"
            try:
                run = known.get(key) or run_short(
                    asked, reference(), record.gates, seconds, threads
                )
            except InputError as error:
                click.echo(f"not run: {name}: {error}", err=True)
                continue
            runs.append(run)
            click.echo(f"{name}: {run.text}")
            if not run.verdict.accepted(allow_degraded=asked.allow_degraded) and (
                run.verdict is not Verdict.INCONCLUSIVE
            ):
                refused.append(f"{name} {run.verdict.value}")
        if runs:
            write_short_runs(path, runs)
    if refused:
        raise GateError(f"{len(refused)} did not pass: {', '.join(refused)}")


def _with_references(
    root: Path, model: ModelRun, budget: str, positions: int, threads: int
) -> Iterator[tuple[Elsewhere, Callable[[], Reference]]]:
    """What is left open of a model's exports, and what opens the reference of each, once."""
    sources = [(model.checkpoint, None, model.artifacts)] + [
        (recovery.checkpoint, model.checkpoint, recovery.variants) for recovery in model.made
    ]
    for checkpoint, original, planned in sources:
        found = list(_asked(root, planned))
        artifacts = [asked.artifact for asked in found]
        source = Path(checkpoint or ""), original, artifacts
        reference = cache(partial(_reference, *source, budget, positions, threads))
        yield from ((asked, reference) for asked in found)


def _asked(root: Path, planned: Sequence[PlannedArtifact]) -> Iterator[Elsewhere]:
    for item in planned:
        artifact = open_artifact(root / item.path)
        yield from left_open(artifact, allow_degraded=item.allow_degraded, ran_in=item.runtime)


def _reference(
    checkpoint: Path,
    given: str | None,
    artifacts: Sequence[Artifact],
    budget: str,
    positions: int,
    threads: int,
) -> Reference:
    """The first texts, of the artifacts' own checkpoint, or the `given` one it was recovered from.

    Raises:
        InputError: the checkpoint is gone, or an artifact was made from another.
    """
    inputs = recorded_inputs(checkpoint, artifacts)
    for artifact in artifacts:
        check_current(artifact, inputs)
    original = original_of(checkpoint, given)
    files = original_inputs(original, checkpoint, inputs)
    suite = chosen_suite(budget, None)
    runtime = open_reference(original, threads, ON_CPU)
    return load_reference(runtime, suite, files, lambda: None).part(positions)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
