"""`python -m runtimes.recover.steps.plan`: what recoveries take, as a line of JSON.

Which ones are asked for is read from stdin, as `edgeproof.steps.planned.AskedRecovering`.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import click

from edgeproof import __version__
from edgeproof.artifact.run_record import PlannedRecovery
from edgeproof.command import EdgeproofCommand
from edgeproof.steps.planned import (
    AskedRecoveries,
    AskedRecovering,
    PlannedRecovering,
    Recoverable,
    heard,
    told,
)
from runtimes.recover.planned import distillation, place, recipe, unfit

MODULE = "runtimes.recover.steps.checkpoint"
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


@click.command(cls=EdgeproofCommand, name="plan")
def main() -> None:
    """Say what the recoveries that stdin asks for take."""
    asked = heard(AskedRecovering, sys.stdin.read())
    versions = {"edgeproof": __version__, **{name: metadata.version(name) for name in LIBRARIES}}
    models = tuple(
        tuple(_recoverable(model, item, asked.threads) for item in model.recoveries)
        for model in asked.models
    )
    click.echo(told(PlannedRecovering(MODULE, versions, models)))


def _recoverable(model: AskedRecoveries, recovery: PlannedRecovery, threads: int) -> Recoverable:
    original, goal = Path(model.checkpoint), recovery.goal
    reason = unfit(original) if goal.optional else None
    if reason is not None:
        click.echo(f"recover {model.label} ({goal.text}): left out: {reason}", err=True)
    trained = distillation(goal)
    return Recoverable(
        recipe(recovery, threads),
        str(place(original, recovery, threads)),
        int(trained is not None and trained.device == "cuda"),
        reason,
    )


if __name__ == "__main__":
    main()
