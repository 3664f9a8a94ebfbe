"""`python -m export.steps.variant JOB`: one variant of a model, as a step of `edgeproof run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from edgeproof.command import EdgeproofCommand
from edgeproof.steps.job import Job, job_argument
from export.command import export_source
from export.flags import ExportFlags
from export.plan import VariantRequest
from export.sources import Source

# Where the artifact lies below the output; which folder of artifacts it goes into is said later.
LABEL, MODEL = "artifact", "model"


@dataclass(frozen=True)
class Params:
    """As `export.steps.plan` has them: the model's names, and a plan's variant.

    `files` names those that options name, by the option.
    """

    name: str | None
    repo: str | None
    revision: str | None
    format: str
    dtype: str
    strict: bool
    engine: str
    options: dict[str, Any]
    files: dict[str, str]
    verify: bool
    tools: dict[str, str]


@click.command(cls=EdgeproofCommand, name="variant")
@job_argument
def main(job: Job) -> None:
    """Export the variant that JOB asks for."""
    asked = job.told(Params)
    files = {name: str(job.input(name) / file) for name, file in asked.files.items()}
    request = VariantRequest(
        asked.format,
        asked.dtype,
        strict=asked.strict,
        engine=asked.engine,
        options={**asked.options, **files},
    )
    form, variant = request.resolve()
    source = Source(job.input(MODEL), LABEL, asked.name, asked.repo, asked.revision)
    strict = {variant} if asked.strict else set()
    flags = ExportFlags(force=True, verify=asked.verify)
    export_source(source, [(form, variant)], job.out, flags, strict)


if __name__ == "__main__":
    main()
