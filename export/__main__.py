"""`python -m export`: carry out a plan, models × variants, and record it for the parity runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, RunRecord
from edgeproof.command import NAMED, EdgeproofCommand, out_option
from edgeproof.errors import InputError
from export.command import (
    KEPT,
    MODEL_HELP,
    WantedModel,
    adapter_options,
    export_variants,
    name_option,
    verify_option,
)
from export.flags import ExportFlags
from export.plan import ModelRequest, Plan, load_plan
from export.plan.recoveries import planned_recoveries, recovered_lines
from export.sources.adapters import requests

LOCAL_PLAN = Path("edgeproof.toml")
VERIFY_HELP = (
    "Reopen each new file and compare it with what was written, in formats that can"
    " (`edgeproof FORMAT --help` says how)."
)


@click.command(cls=EdgeproofCommand, name="export", kept=KEPT)
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Plan file (TOML). Default: ./edgeproof.toml if there is one, else the built-in plan.",
)
@click.option(
    "--model",
    "-m",
    "models",
    type=NAMED,
    multiple=True,
    help=f"Instead of the plan's. {MODEL_HELP}",
)
@click.option(
    "--revision", type=NAMED, help="Branch, tag or commit for the models given by --model."
)
@adapter_options
@name_option
@click.option(
    "--format",
    "formats",
    multiple=True,
    help="Only the plan's variants of this format. Repeatable.",
)
@out_option("Root folder of the artifacts.")
@click.option("--force", is_flag=True, help="Write again even if nothing changed.")
@click.option(
    "--dry-run", is_flag=True, help="Print sizes and bits per weight; measure and write nothing."
)
@verify_option(VERIFY_HELP, default=True)
@click.option(
    "--recover/--no-recover",
    default=None,
    help="Note the plan's recovered variants, for `python -m runtimes.parity --recover` to make, or"
    " leave them out of this run. By default they are noted of models that the plan recovers"
    " (recover-up-to).",
)
def main(
    plan_path: Path | None,
    models: tuple[str, ...],
    revision: str | None,
    adapters: tuple[str, ...],
    adapter_weights: tuple[float, ...],
    name: str | None,
    formats: tuple[str, ...],
    out: Path,
    force: bool,
    dry_run: bool,
    verify: bool,
    recover: bool | None,
) -> None:
    """Export every model of a plan in every variant of the plan.

    Variants with `recover` are made later, from a checkpoint that PyTorch makes.

    \b
    Examples:
      python -m export
      python -m export --model ./my-checkpoint --dry-run
      python -m export --format gguf --format mlc
      python -m export --model ./my-checkpoint --adapter ./my-lora
      python -m export --plan edgeproof.toml --out build/artifacts
      python -m export --plan benchmarks/recovered.toml && python -m runtimes.parity --recover
    """  # noqa: D301
    if plan_path is None and LOCAL_PLAN.exists():
        plan_path = LOCAL_PLAN
    if revision and not models:
        raise InputError("--revision needs --model; a plan gives each model its own revision")
    merged = requests(adapters, adapter_weights)
    if merged and not models:
        raise InputError("--adapter needs --model; a plan gives each model its own adapters")
    if name and len(models) != 1:
        raise InputError("--name needs one --model")
    plan = load_plan(plan_path).only(formats).recovering(recover)
    if not plan.variants:
        raise InputError("--no-recover leaves nothing of the plan: all its variants are recovered")
    wanted = tuple(ModelRequest(model, revision, merged) for model in models) or plan.models
    flags = ExportFlags(force=force, dry_run=dry_run, verify=verify)
    runs = carry_out(plan, wanted, out, flags, name)
    if not dry_run:
        RunRecord(runs, plan.gates).save(out)


def carry_out(
    plan: Plan,
    models: tuple[ModelRequest, ...],
    out: Path,
    flags: ExportFlags,
    name: str | None = None,
) -> tuple[ModelRun, ...]:
    """Export models × variants; the plan is checked already.

    Raises:
        InputError: as for `export_variants`, or two models would have the same folder.
    """
    _refuse_one_folder_for_two(models)
    plain = [request for request in plan.variants if request.plain]
    variants = [request.resolve() for request in plain]
    strict = {
        variant for (_, variant), request in zip(variants, plain, strict=True) if request.strict
    }
    runs = []
    for model in models:
        wanted = WantedModel(model.id, model.revision, model.adapters, name or model.name)
        source, folders = export_variants(wanted, variants, out, flags, strict)
        artifacts = tuple(
            PlannedArtifact(
                folder.relative_to(out).as_posix(), request.allow_degraded, runtime=request.runtime
            )
            for folder, request in zip(folders, plain, strict=True)
        )
        recovered, left_out = planned_recoveries(model, source, plan)
        for line in recovered_lines(recovered, out):
            click.echo(line)
        if left_out is not None:
            click.echo(left_out)
        runs.append(ModelRun(source.label, str(source.path.resolve()), artifacts, recovered))
    return tuple(runs)


def _refuse_one_folder_for_two(models: Sequence[ModelRequest]) -> None:
    """Before anything is written: a folder's own name may be that of another one elsewhere."""
    if len(models) < 2:
        return
    from export.sources import resolve

    places: dict[str, Path] = {}
    for model in models:
        source = resolve(model.id, model.revision, model.adapters)
        place = source.path.resolve()
        if places.setdefault(source.label, place) != place:
            raise InputError(
                f"{place}: its artifacts would lie where those of {places[source.label]} do, in"
                f" {source.label}; rename one of the folders, or export into another --out"
            )


if __name__ == "__main__":
    main()
