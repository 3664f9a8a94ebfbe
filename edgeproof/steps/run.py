"""Carry a graph out: have its steps done, collect what they made, report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgeproof.errors import InputError
from edgeproof.files.atomic import scratch_folder
from edgeproof.processes import run
from edgeproof.steps.collect import Taken, collect, stored
from edgeproof.steps.executors.executor import Ended, Executor
from edgeproof.steps.graph import Graph, ModelSteps, Variant, build
from edgeproof.steps.job import write_job
from edgeproof.steps.planned import PlannedExports, PlannedMeasuring, PlannedRecovering
from edgeproof.steps.progress import Progress, say, shown
from edgeproof.steps.results import LostResultError, fetch
from edgeproof.steps.store import Store
from edgeproof.steps.work import JOB, TRIES, Outcome, work_folder


@dataclass(frozen=True)
class Wanted:
    """Where artifacts and reports go, and what is reported.

    `further` has resources of a cluster that steps of a kind also take. The command has `begun`
    (`time.monotonic`) before all was planned, which may have fetched models.
    """

    root: Path
    allow_degraded: bool
    pages: bool
    junit: Path | None
    markdown: Path | None
    further: Mapping[str, Mapping[str, float]]
    begun: float


def carry_out(
    exports: PlannedExports,
    measuring: PlannedMeasuring,
    recovering: PlannedRecovering,
    store: Store,
    executor: Executor,
    wanted: Wanted,
) -> int:
    """Do all that is planned; the report's exit code.

    Raises:
        InputError: no model was found, or the store fails.
    """
    if not exports.models:
        raise InputError("; ".join(lost.reason for lost in exports.lost))
    graph = build(exports, measuring, wanted.further, recovering)
    with scratch_folder(work_folder()) as folder:
        models = _done(graph, store, executor, wanted, exports.gates, folder)
        params: dict[str, Any] = {
            "root": str(wanted.root),
            "models": models,
            "lost": {lost.label: lost.reason for lost in exports.lost},
            "allow_degraded": wanted.allow_degraded,
            "pages": wanted.pages,
            "junit": None if wanted.junit is None else str(wanted.junit),
            "markdown": None if wanted.markdown is None else str(wanted.markdown),
        }
        write_job(folder / JOB, params, {}, folder, {})
        sys.stdout.flush()
        return run([sys.executable, "-m", measuring.report, str(folder / JOB)]).returncode


def _done(
    graph: Graph,
    store: Store,
    executor: Executor,
    wanted: Wanted,
    gates: dict[str, dict[str, float]],
    folder: Path,
) -> list[dict[str, Any]]:
    """Have all steps done, and what they made fetched: what the report is told of the models.

    What is lost then, since somebody has damaged it, is done again; what is lost each time has
    failed.
    """
    for left in reversed(range(TRIES)):
        outcomes = _outcomes(graph, executor, wanted.begun)
        taken = collect(graph, outcomes, store, wanted.root, gates, click.echo)
        models = [
            {
                "label": model.planned.label,
                "checkpoint": model.planned.checkpoint.folder,
                "artifacts": list(_measured(model, outcomes, taken, store, folder)),
            }
            for model in graph.models
        ]
        lost = {**taken.lost, **{k: item.failed for k, item in outcomes.items() if item.lost}}
        if not left or not lost:
            break
        for reason in dict.fromkeys(lost.values()):
            click.echo(f"{reason}: it is done again", err=True)
    return models


def _outcomes(graph: Graph, executor: Executor, begun: float) -> dict[str, Outcome]:
    """What becomes of each step, by its key."""
    outcomes: dict[str, Outcome] = {}
    progress = Progress(graph.steps, begun)
    with closing(executor.run(graph.steps, graph.given)) as events, shown(progress):
        for event in events:
            say(progress, event)
            if isinstance(event, Ended):
                outcomes[event.step.key] = event.outcome
    click.echo(progress.summary(), err=True)
    return outcomes


def _measured(
    model: ModelSteps,
    outcomes: Mapping[str, Outcome],
    taken: Taken,
    store: Store,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """What the report is told of a model's artifacts; results are put into a folder."""
    of_recovered = (
        (variant, taken.checkpoints.get(recovery.recover.key, recovery.folder))
        for recovery in model.recoveries
        for variant in recovery.variants
    )
    for variant, recovered in (*((item, None) for item in model.variants), *of_recovered):
        planned, failed = variant.planned, _failed(variant, outcomes)
        exported = taken.places.get(variant.export.key) if variant.export else None
        path = exported or f"{model.planned.label}/{planned.folder}"
        result = None
        if failed is None:
            assert variant.export is not None
            assert variant.measure is not None
            key = variant.measure.key
            try:
                fetch(store, stored(store, outcomes[key]), folder / key)
            except LostResultError as error:
                failed = taken.lost[key] = str(error)
            else:
                result = None if exported is None else str(folder / key)
                failed = taken.lost.get(variant.export.key)
        yield {
            "path": path,
            "allow_degraded": planned.allow_degraded,
            "result": result,
            "failed": failed,
            "recovered": recovered,
        }


def _failed(variant: Variant, outcomes: Mapping[str, Outcome]) -> str | None:
    """Why an artifact was not measured."""
    if variant.planned.failed is not None:
        return variant.planned.failed
    reasons = (outcomes[step.key].failed for step in variant.steps)
    return next((reason for reason in reasons if reason is not None), None)
