"""The command line that all exporters share: the options of an export, and its carrying out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgeproof.command import NAMED, EdgeproofCommand, out_option, progress
from edgeproof.errors import InputError
from edgeproof.files.space import require_folder
from export.flags import ExportFlags
from export.format import DIRECT, Hint
from export.model_name import model_name
from export.sources.adapters import AdapterRequest, requests

if TYPE_CHECKING:
    from edgeproof.artifact import Variant
    from export.format import Exporter, Format
    from export.job import Outcome
    from export.sources import Source

KEPT = "the artifacts that are finished are kept; the same command goes on with the rest"
MODEL_HELP = (
    "Hub id (org/name), checkpoint folder, .gguf file, 'bundled' (real SmolLM2-135M-Instruct) or"
    " 'bundled-360m' (a stand-in: that model grown to the shape of SmolLM-360M, same function)."
)

log = logging.getLogger(__name__)


def _model_name(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    return model_name(value, "--name")


ADAPTER_HELP = (
    "PEFT LoRA (folder or hub id) that is merged into the model, in float32. Repeatable: one after"
    " the other."
)
WEIGHT_HELP = "What an adapter's change is multiplied with: once for each --adapter. Default: 1."


def adapter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--adapter` and `--adapter-weight`; see `export.sources.adapters.requests`."""
    weight = click.option(
        "--adapter-weight", "adapter_weights", type=float, multiple=True, help=WEIGHT_HELP
    )
    return click.option("--adapter", "adapters", type=NAMED, multiple=True, help=ADAPTER_HELP)(
        weight(command)
    )


name_option = click.option(
    "--name",
    callback=_model_name,
    help="What the model is called in files and cards. A folder of your own has no other name.",
)


def verify_option(
    text: str, *, default: bool
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The `--verify` option, with this help."""
    return click.option(
        "--verify/--no-verify",
        default=default,
        show_default=True,
        help=text,
    )


def format_command(form: Format[Any]) -> click.Command:
    """The command `python -m export.<format>`, with the options that the format has of its own."""
    names = ", ".join("=".join((v.name, *v.aliases)) for v in form.variants)

    @click.command(
        cls=EdgeproofCommand,
        kept=KEPT,
        name=form.name,
        help=f"Export a Llama-family checkpoint to {form.title}.\n\n\b\nExamples:\n  {form.example}"
        f"\n  edgeproof {form.name} -m ./base --adapter ./my-lora -d {form.variants[0].name}",
    )
    @click.option(
        "--model", "-m", type=NAMED, default="bundled", show_default=True, help=MODEL_HELP
    )
    @click.option(
        "--revision", type=NAMED, help="Branch, tag or commit of a hub id, for example v0.1."
    )
    @adapter_options
    @name_option
    @click.option(
        "--dtype",
        "-d",
        "dtypes",
        multiple=True,
        required=True,
        help=f"{names}. Repeatable, or comma-separated.",
    )
    @out_option(
        "Root folder; artifacts are folders in OUT/<model>/<format>, named after their dtype."
    )
    @click.option("--force", is_flag=True, help="Write again even if nothing changed.")
    @click.option(
        "--dry-run",
        is_flag=True,
        help="Print sizes and bits per weight; measure and write nothing.",
    )
    @click.option(
        "--strict",
        is_flag=True,
        help="Refuse a dtype if some tensors would have to be stored in another type.",
    )
    def command(
        model: str,
        revision: str | None,
        adapters: tuple[str, ...],
        adapter_weights: tuple[float, ...],
        name: str | None,
        dtypes: tuple[str, ...],
        out: Path,
        force: bool,
        dry_run: bool,
        strict: bool,
        verify: bool = False,
        engine: str = DIRECT,
        **options: Any,
    ) -> None:
        wanted = [part for value in dtypes for part in value.split(",") if part]
        if not wanted:
            raise InputError(f"--dtype names none; choose from {names}")
        maker = form.engine(engine)
        accepted = _accepted(maker, options)
        variants = [(maker, maker.variant(name, **accepted)) for name in wanted]
        flags = ExportFlags(force=force, dry_run=dry_run, strict=strict, verify=verify)
        wanted_model = WantedModel(model, revision, requests(adapters, adapter_weights), name)
        export_variants(wanted_model, variants, out, flags)

    if form.check is not None:
        verify_option(form.check.help, default=False)(command)
    if form.engines:
        command.params.append(_engine_option(form))
    command.params.extend(form.options)
    return command


def _engine_option(form: Format[Any]) -> click.Option:
    titles = "; ".join(f"{name}: {engine.title}" for name, engine in form.engines.items())
    return click.Option(
        ["--engine"],
        type=click.Choice([DIRECT, *form.engines]),
        default=DIRECT,
        show_default=True,
        help=f"Who makes the graph. {DIRECT}: this program, for families that it knows; {titles}.",
    )


def _accepted(form: Exporter[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that `form` has; one that was typed and that it lacks is refused."""
    known = {option.name for option in form.options}
    context = click.get_current_context()
    for name in options.keys() - known:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(f"--{name.replace('_', '-')} has no effect with this --engine")
    return {name: value for name, value in options.items() if name in known}


@dataclass(frozen=True)
class WantedModel:
    """A model as a command line names it.

    `adapters` are merged into it; `name` is what it is called in files and cards, instead of what
    its source says.
    """

    id: str
    revision: str | None = None
    adapters: tuple[AdapterRequest, ...] = ()
    name: str | None = None


def export_variants(
    model: WantedModel,
    variants: Sequence[tuple[Exporter[Any], Variant[Any]]],
    out: Path,
    flags: ExportFlags,
    strict: Collection[Variant[Any]] = (),
) -> tuple[Source, list[Path]]:
    """Resolve a model once and export variants of it, as `export_source` does.

    Returns the model's source and each variant's artifact folder.

    Raises:
        InputError: a bad model, or a target that cannot be written.
    """
    from export.sources import resolve

    if not flags.dry_run:
        require_folder(out)
    source = resolve(model.id, model.revision, model.adapters)
    if model.name is not None:
        source = replace(source, name=model.name)
    return source, export_source(source, variants, out, flags, strict)


def export_source(
    source: Source,
    variants: Sequence[tuple[Exporter[Any], Variant[Any]]],
    out: Path,
    flags: ExportFlags,
    strict: Collection[Variant[Any]] = (),
) -> list[Path]:
    """Export variants of a model; for those in `strict` that flag is set.

    One line is printed for each, with more below it where tensors are stored in several types.

    Returns each variant's artifact folder.

    Raises:
        InputError: a bad model, or a target that cannot be written.
    """
    from edgeproof.artifact import classes_text, fallback_text
    from export import job
    from export.rounding.recipe import on_grid_text

    openers = {form.open for form, _ in variants}
    opened = {opener: opener(source.path) for opener in openers}
    folders, hints = [], set[str]()
    for wanted, form in {variant: form for form, variant in variants}.items():
        asked = replace(flags, strict=flags.strict or wanted in strict)
        checkpoint = opened[form.open]
        identity = job.identify(source, checkpoint)
        variant = form.for_checkpoint(wanted, checkpoint)
        # Completing may take minutes in PyTorch, and no size depends on what it finds.
        if not flags.dry_run:
            variant = form.complete_from_checkpoint(variant, checkpoint)
        export = job.Job(source, checkpoint, identity, form, variant)
        folder = export.folder(out)
        folders.append(folder)
        with progress(f"{form.name} {variant.name}", checkpoint.parameter_count) as advance:
            if flags.dry_run:
                rehearsal = job.rehearse(export, advance)
                size, weights = rehearsal.bytes, rehearsal.weights
                if asked.strict:
                    job.refuse_fallback(variant, weights)
                note, verified = "  (dry run, not written)", None
            else:
                done = job.run(export, out, advance, asked)
                manifest = done.artifact.manifest
                size, weights = sum(item.bytes for item in manifest.outputs), manifest.weights
                note, verified = _note(done), done.verified and done.verified.note
                facts = {"model": source.label, "artifact": str(folder), "bytes": size}
                log.info("exported", extra={**facts, "reused": done.reused})
        if isinstance(verified, Hint):
            verified = None if verified in hints else verified
            hints.update([verified] if verified else [])
        bpw = weights["effective_bpw"]
        label = f"{form.name:5}{variant.name:9}"
        click.echo(f"{label}{size / 1e6:9.1f} MB{bpw:8.2f} bits/weight  {folder}{note}")
        lines = {
            "types": classes_text(weights),
            "fallback": fallback_text(weights),
            "verified": verified,
            "rounding": on_grid_text(variant.recipe),
        }
        for title, text in lines.items():
            if text is not None:
                click.echo(f"     {title}: {text}")
    return folders


def _note(done: Outcome) -> str:
    if done.reused:
        return "  (unchanged, reused)"
    return f"  (verified: {done.verified.tensors} tensors)" if done.verified else ""
