"""`python -m export.steps.variant JOB`: one variant of a model, as a step of `edgeproof run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from edgeproof import __version__
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import InputError
from edgeproof.steps.job import Job, job_argument
from edgeproof.steps.machine import where
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
    _require_tools({"edgeproof": __version__, **form.tools_of(variant)}, asked.tools)
    source = Source(job.input(MODEL), LABEL, asked.name, asked.repo, asked.revision)
    strict = {variant} if asked.strict else set()
    flags = ExportFlags(force=True, verify=asked.verify)
    export_source(source, [(form, variant)], job.out, flags, strict)


def _require_tools(here: dict[str, str], asked: dict[str, str]) -> None:
    """Refuse a machine whose tools give other bytes; those of environments made on demand, too.

    Raises:
        InputError: naming the first.
    """
    for name in sorted({*here, *asked}):
        if here.get(name) != asked.get(name):
            have = f"has {name} {here[name]}" if name in here else f"has no {name}"
            raise InputError(
                f"{where()} {have}, the run was begun with {asked.get(name, 'none')}: install the"
                " same edgeproof"
            )


if __name__ == "__main__":
    main()
