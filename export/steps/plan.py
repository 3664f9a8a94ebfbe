"""`python -m export.steps.plan`: what a plan asks to be exported, as a line of JSON.

Models are found on the way: downloaded, converted or merged where needed, as for an export.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgeproof import __version__
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import InputError
from edgeproof.steps.planned import (
    GivenFiles,
    LostModel,
    PlannedExport,
    PlannedExports,
    PlannedModel,
    PlannedRecovered,
    told,
)
from edgeproof.steps.step import Needs
from edgeproof.steps.work import installed
from export.__main__ import LOCAL_PLAN
from export.checkpoint import open_folder
from export.format import Exporter
from export.job import identify
from export.plan import ModelRequest, Plan, VariantRequest, load_plan
from export.plan.recoveries import planned_recoveries
from export.sources import Source, resolve
from export.steps.content import given_file, given_files

MODULE = "export.steps.variant"
# An exporter streams; llama.cpp's own types are rounded by it in a copy of the model.
MEMORY_MB = 1500


@click.command(cls=EdgeproofCommand, name="plan")
@click.option("--plan", "plan_path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", "-m", "models", multiple=True)
@click.option("--revision")
@click.option("--format", "formats", multiple=True)
@click.option("--verify/--no-verify", default=True)
@click.option("--recover/--no-recover", default=None)
def main(
    plan_path: Path | None,
    models: tuple[str, ...],
    revision: str | None,
    formats: tuple[str, ...],
    verify: bool,
    recover: bool | None,
) -> None:
    """Find a plan's models, and say what is to be exported of each."""
    if plan_path is None and LOCAL_PLAN.exists():
        plan_path = LOCAL_PLAN
    if revision and not models:
        raise InputError("--revision needs --model; a plan gives each model its own revision")
    plan = load_plan(plan_path).only(formats).recovering(recover)
    if not plan.variants:
        raise InputError("--no-recover leaves nothing of the plan: all its variants are recovered")
    wanted = tuple(ModelRequest(model, revision) for model in models) or plan.models
    found: list[PlannedModel] = []
    lost = []
    for request in wanted:
        try:
            found.append(_model(request, plan, verify=verify))
        except InputError as error:
            lost.append(LostModel(request.id, str(error)))
    _refuse_one_folder_for_two(found)
    click.echo(told(PlannedExports(tuple(found), tuple(lost), plan.gates)))


def _model(request: ModelRequest, plan: Plan, *, verify: bool) -> PlannedModel:
    source = resolve(request.id, request.revision, request.adapters)
    if request.name is not None:
        source = replace(source, name=request.name)
    checkpoint = open_folder(source.path)
    identity = identify(source, checkpoint)
    recoveries, left_out = planned_recoveries(request, source, plan)
    if left_out is not None:
        click.echo(left_out, err=True)
    named = replace(source, name=identity.name)
    recovered = (
        PlannedRecovered(
            recovery,
            tuple(
                _export(item, named, verify=verify)
                for item in plan.variants
                if item.goal == recovery.goal
            ),
        )
        for recovery in recoveries
    )
    return PlannedModel(
        source.label,
        given_files(source.path),
        tuple(item.path for item in identity.inputs),
        identity.parameters,
        tuple(_export(item, source, verify=verify) for item in plan.variants if item.plain),
        tuple(recovered),
    )


def _export(request: VariantRequest, source: Source, *, verify: bool) -> PlannedExport:
    form, variant = request.resolve()
    files = dict(_files(form, request))
    params = {
        "name": source.name,
        "repo": source.repo,
        "revision": source.revision,
        "format": request.format,
        "dtype": request.dtype,
        "strict": request.strict,
        "engine": request.engine,
        "options": {name: value for name, value in request.options.items() if name not in files},
        "files": {name: given.files[0].path for name, given in files.items()},
        "verify": verify,
    }
    planned = PlannedExport(
        label=f"{form.name} {variant.name}",
        folder=f"{form.name}/{variant.name}",
        module=MODULE,
        params=params,
        files=files,
        versions={},
        needs=Needs(memory_mb=MEMORY_MB),
        allow_degraded=request.allow_degraded,
        runtime=request.runtime,
    )
    try:
        tools = {"edgeproof": __version__, **form.tools_of(variant)}
    except InputError as error:
        return replace(planned, failed=str(error))
    # Those of an environment that is made on demand are not installed here, nor on a worker.
    asked = {name: found for name, found in tools.items() if installed(name) == found}
    return replace(planned, params={**params, "tools": tools}, versions=asked)


def _files(form: Exporter[Any], request: VariantRequest) -> Iterator[tuple[str, GivenFiles]]:
    """The files that options name: workers have them from the store."""
    for option in form.options:
        name = option.opts[0].removeprefix("--")
        value = request.options.get(name)
        if isinstance(option.type, click.Path) and isinstance(value, str) and Path(value).is_file():
            yield name, given_file(Path(value))


def _refuse_one_folder_for_two(models: list[PlannedModel]) -> None:
    places: dict[str, str] = {}
    for model in models:
        place = model.checkpoint.folder
        if places.setdefault(model.label, place) != place:
            raise InputError(
                f"{place}: its artifacts would lie where those of {places[model.label]} do, in"
                f" {model.label}; rename one of the folders"
            )


if __name__ == "__main__":
    main()
