"""`python -m runtimes.parity.steps.reference JOB`: what the original says of a text, once.

Its output are files of the cache, at their places below it, for `place`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder, keep
from edgeproof.steps.job import Job, job_argument
from runtimes.parity.captured import FOLDERS, capture, kept_files, sample_all
from runtimes.parity.stages import Stages
from runtimes.parity.steps.params import MODEL, TextParams, model_files, suite_of


@click.command(cls=EdgeproofCommand, name="reference")
@job_argument
def main(job: Job) -> None:
    """Ask the original what all measurements ask of it."""
    params = job.told(TextParams)
    checkpoint, stages = job.input(MODEL), Stages()
    files = model_files(checkpoint, params.inputs)
    suite = suite_of(job, params)
    with stages.subject("reference"):
        captured = capture(
            checkpoint, suite, files, params.threads, params.positions, stages, params.computing
        )
        with stages.phase("the original's samples"):
            sample_all(captured, files)
    for path in kept_files(captured, files):
        target = job.out / path.relative_to(cache_folder())
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target)
        except FileNotFoundError:
            raise InputError(
                f"{path}: could not be kept; EDGEPROOF_CACHE names the cache"
            ) from None


def place(captured: Path) -> None:
    """Put what a reference step gave into this machine's cache, where it is not there.

    Raises:
        InputError: it has a file that no such step gives; other folders of the cache have programs.
    """
    for path in captured.rglob("*"):
        inner = path.relative_to(captured)
        if inner.parts[0] not in FOLDERS:
            raise InputError(f"{inner}: no reference step gives this; empty the store")
        target = cache_folder() / inner
        if path.is_file() and not target.exists():
            keep(target, path.read_bytes())


if __name__ == "__main__":
    main()
