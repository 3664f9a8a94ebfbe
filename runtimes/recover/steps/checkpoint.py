"""`python -m runtimes.recover.steps.checkpoint JOB`: a recovered checkpoint, as a step.

It is made in this machine's cache, where `runtimes.recover.planned` finds it too, from what
recoveries of the same model have left there; the output is a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from edgeproof.artifact.run_record import ModelRun, Origin, PlannedRecovery
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import InputError
from edgeproof.files.copying import copy_folder
from edgeproof.goal import Goal
from edgeproof.steps.job import Job, job_argument
from runtimes.recover.planned import recipe, recovered_checkpoint

MODEL = "model"


@dataclass(frozen=True)
class Params:
    """As `runtimes.recover.planned.recipe` has them."""

    recipe: int
    text: int
    origin: Origin
    goal: Goal
    device: str | None
    threads: int


@click.command(cls=EdgeproofCommand, name="checkpoint")
@job_argument
def main(job: Job) -> None:
    """Recover the model as JOB says."""
    asked = job.told(Params)
    planned = PlannedRecovery(asked.origin, asked.goal, ())
    _require_same(recipe(planned, asked.threads), job.params)
    run = ModelRun(asked.origin.name, str(job.input(MODEL)), ())
    made = recovered_checkpoint(run, planned, asked.threads, click.echo)
    copy_folder(made, job.out)


def _require_same(here: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse a machine that would make something else of the same wish.

    Raises:
        InputError: naming what differs.
    """
    for name, value in here.items():
        if asked[name] != value:
            raise InputError(
                f"this machine recovers with {name} {value}, the run was begun with {asked[name]}:"
                " install the same edgeproof, on machines of one kind"
            )


if __name__ == "__main__":
    main()
