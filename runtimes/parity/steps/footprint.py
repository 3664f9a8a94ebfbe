"""`python -m runtimes.parity.steps.footprint JOB`: memory and speed of an artifact, nothing else.

That it crashes or cannot be opened is a result too, which the comparison judges.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from edgeproof.artifact import MANIFEST, Artifact, open_artifact
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import DamagedExportError, InputError
from edgeproof.files.own import json_object, typed
from edgeproof.steps.job import Job, job_argument
from runtimes.footprint import Crash, Footprint, footprint
from runtimes.parity.steps import places
from runtimes.parity.steps.params import ARTIFACT
from runtimes.parity.steps.places import with_folders, with_names
from runtimes.registry import adapter_of

RESULT = "footprint.json"


@dataclass(frozen=True)
class Params:
    """With how many threads it is measured; in another runtime only that it does not crash."""

    threads: int
    runtime: str | None = None


@dataclass(frozen=True)
class Told:
    """What a process of its own told of an artifact: a footprint, a crash, or a refusal."""

    footprint: Footprint | None = None
    crash: str | None = None
    refused: str | None = None
    damaged: str | None = None


@click.command(cls=EdgeproofCommand, name="footprint")
@job_argument
def main(job: Job) -> None:
    """Measure the artifact, in a process of its own."""
    artifact = only_artifact(job.input(ARTIFACT))
    told = _told(artifact, job.told(Params))
    told = with_names(told, {str(artifact.path): places.ARTIFACT})
    (job.out / RESULT).write_text(json.dumps(asdict(told)), "utf-8")


def _told(artifact: Artifact, params: Params) -> Told:
    other = params.runtime
    try:
        if not adapter_of(artifact, other).in_process:
            return Told()
        return Told(footprint(artifact, params.threads, other, brief=other is not None))
    except Crash as error:
        return Told(crash=str(error))
    except DamagedExportError as error:
        return Told(damaged=error.what)
    except InputError as error:
        return Told(refused=str(error))


def known(folder: Path, artifact: Artifact) -> Footprint:
    """What `main` has found of an artifact, as `runtimes.footprint.footprint` gives it.

    Raises:
        Crash, InputError: what that raised.
    """
    told = typed(Told, json_object((folder / RESULT).read_bytes()))
    told = with_folders(told, {places.ARTIFACT: str(artifact.path)})
    if told.crash is not None:
        raise Crash(told.crash)
    if told.damaged is not None:
        raise DamagedExportError(told.damaged)
    if told.footprint is None:
        raise InputError(told.refused or "its footprint was not measured")
    return told.footprint


def only_artifact(folder: Path) -> Artifact:
    """The one artifact that lies below a folder."""
    (manifest,) = folder.rglob(MANIFEST)
    return open_artifact(manifest.parent)


if __name__ == "__main__":
    main()
