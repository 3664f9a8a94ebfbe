"""`python -m runtimes.parity.steps.measure JOB`: run one artifact and compare it, as if alone."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgeproof.artifact import Artifact
from edgeproof.steps.job import Job, job_argument
from runtimes.footprint import Footprint
from runtimes.parity.environment import environment
from runtimes.parity.run import Conditions, Extent, ParityRun, Request, run_each
from runtimes.parity.steps import places
from runtimes.parity.steps.footprint import known, only_artifact
from runtimes.parity.steps.kept import RESULT, kept, to_text
from runtimes.parity.steps.params import (
    ARTIFACT,
    FOOTPRINT,
    MODEL,
    RECOVERED,
    REFERENCE,
    Params,
    suite_of,
)
from runtimes.parity.steps.reference import place
from runtimes.parity.watch import journal_of
from runtimes.parity.watched import WatchedCommand, watched_options

SPINS = "100"


@click.command(cls=WatchedCommand, name="measure", module="runtimes.parity.steps.measure")
@job_argument
@watched_options("the artifact")
def main(job: Job, journal: Path | None, crashed: tuple[tuple[str, str, str], ...]) -> None:
    """Compare the artifact with the original."""
    # TVM's threads would spin for minutes, at its end too, where other steps have the cores.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPINS)
    params = job.told(Params)
    place(job.input(REFERENCE))
    original, artifact = job.input(MODEL), only_artifact(job.input(ARTIFACT))
    checkpoint = job.input(RECOVERED) if RECOVERED in job.inputs else original
    extent = Extent(
        params.positions,
        params.footprints,
        params.localise,
        params.whole_text,
        journal_of(journal, crashed),
        costs=_Known(job),
        computing=params.computing,
    )
    requests = [Request(artifact.path, allow_degraded=False, runtime=params.runtime)]
    conditions = Conditions(suite_of(job, params), params.threads, params.gates, extent)
    facts, (entry,) = run_each(ParityRun(checkpoint, requests, conditions, original))
    others = {str(artifact.path): places.ARTIFACT, str(original): places.CHECKPOINT}
    if RECOVERED in job.inputs:
        others[str(checkpoint)] = places.RECOVERED
    text = to_text(kept(facts, environment(params.threads), entry), others)
    (job.out / RESULT).write_text(text, "utf-8")


class _Known:
    """`Costs` that the footprint's own step has found."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(
        self, artifact: Artifact, threads: int, other: str | None = None, *, brief: bool = False
    ) -> Footprint:
        return known(self._job.input(FOOTPRINT), artifact)


if __name__ == "__main__":
    main()
