"""The command line that all exporters share: options, progress, one-line errors, exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from edgeproof.extras import optional_packages
from export.errors import GateError, InputError
from export.format import DIRECT
from export.log import log_as_json

if TYPE_CHECKING:
    from export.artifact import Variant
    from export.format import Advance, Format
    from export.job import Outcome
    from export.sources import Source

MODEL_HELP = (
    "Hub id (org/name), checkpoint folder, .gguf file, 'bundled' (real SmolLM2-135M-Instruct) or"
    " 'bundled-360m' (a stand-in: that model grown to the shape of SmolLM-360M, same function)."
)

LOGS_JSON = "edgeproof.logs_json"  # in a command's context

log = logging.getLogger(__name__)


class EdgeproofCommand(click.Command):
    """A click command whose `InputError` becomes one line and exit code 2, `GateError` 1.

    So does a package that is missing and that an extra brings. Each has `--log-json`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(
            click.Option(
                ["--log-json"],
                is_flag=True,
                expose_value=False,
                callback=_log_json,
                help="Write what happens to stderr as JSON lines, for machines.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command inside the error boundary."""
        with error_boundary(ctx), optional_packages():
            return super().invoke(ctx)


@contextlib.contextmanager
def error_boundary(ctx: click.Context) -> Iterator[None]:
    """Errors of ours end the command with one line and their exit code."""
    try:
        yield
    except (InputError, GateError) as error:
        if ctx.meta.get(LOGS_JSON):
            log.error("failed", extra={"error": str(error), "exit_code": error.exit_code})
        else:
            click.echo(f"error: {error}", err=True)
        ctx.exit(error.exit_code)


def _log_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        log_as_json()
        context.meta[LOGS_JSON] = True


def out_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The `--out` option."""
    return click.option(
        "--out",
        "-o",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("artifacts"),
        show_default=True,
        help=help_text,
    )


def verify_option(*, default: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The `--verify` option."""
    return click.option(
        "--verify/--no-verify",
        default=default,
        show_default=True,
        help="Reopen each new GGUF file with llama.cpp's own reader and compare every tensor's"
        " SHA-256 with what was written, then load it in llama.cpp and evaluate a prompt.",
    )


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr where that is a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


@dataclass(frozen=True)
class Handling:
    """What the shared options ask for; see their help texts."""

    force: bool = False
    dry_run: bool = False
    strict: bool = False
    verify: bool = False


def format_command(form: Format[Any], example: str) -> click.Command:
    """The command `python -m export.<format>`, with the options that the format has of its own."""
    names = ", ".join("=".join((v.name, *v.aliases)) for v in form.variants)

    @click.command(
        cls=EdgeproofCommand,
        name=form.name,
        help=f"Export a Llama-family checkpoint to {form.title}.\n\n\b\nExample:\n  {example}",
    )
    @click.option("--model", "-m", default="bundled", show_default=True, help=MODEL_HELP)
    @click.option("--revision", help="Branch, tag or commit of a hub id, for example v0.1.")
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
    @click.option("--dry-run", is_flag=True, help="Print sizes and bits per weight, write nothing.")
    @click.option(
        "--strict",
        is_flag=True,
        help="Refuse a dtype if some tensors would have to be stored in another type.",
    )
    def command(
        model: str,
        revision: str | None,
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
        maker = form.engine(engine)
        accepted = _accepted(maker, options)
        variants = [(maker, maker.variant(name, **accepted)) for name in wanted]
        handling = Handling(force=force, dry_run=dry_run, strict=strict, verify=verify)
        export_variants(model, revision, variants, out, handling)

    if form.check is not None:
        verify_option(default=False)(command)
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


def _accepted(form: Format[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that `form` has; one that was typed and that it lacks is refused."""
    known = {option.name for option in form.options}
    context = click.get_current_context()
    for name in options.keys() - known:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(f"--{name.replace('_', '-')} has no effect with this --engine")
    return {name: value for name, value in options.items() if name in known}


def export_variants(
    model: str,
    revision: str | None,
    variants: Sequence[tuple[Format[Any], Variant]],
    out: Path,
    handling: Handling,
    strict: Collection[Variant] = (),
) -> tuple[Source, list[Path]]:
    """Resolve a model once and export variants of it; `strict` names those that are handled so.

    One line is printed for each, with more below it where tensors are stored in several types.

    Returns the model's source and each variant's artifact folder.

    Raises:
        InputError: a bad model, or a target that cannot be written.
    """
    from export import job
    from export.artifact import classes_text, fallback_text
    from export.sources import resolve

    source = resolve(model, revision)
    openers = {form.open for form, _ in variants}
    opened = {opener: opener(source.path) for opener in openers}
    folders = []
    for wanted, form in {variant: form for form, variant in variants}.items():
        refuse_fallback = handling.strict or wanted in strict
        checkpoint = opened[form.open]
        identity = job.identify(source, checkpoint)
        variant = form.settle(wanted, checkpoint)
        folder = job.target_folder(out, source, identity, form, variant)
        folders.append(folder)
        with progress(f"{form.name} {variant.name}", checkpoint.parameter_count) as advance:
            if handling.dry_run:
                rehearsal = job.rehearse(checkpoint, identity, form, variant, advance)
                size, weights = rehearsal.bytes, rehearsal.weights
                if refuse_fallback:
                    job.refuse_fallback(variant, weights)
                note, verified = "  (dry run, not written)", None
            else:
                done = job.run(
                    source,
                    checkpoint,
                    identity,
                    form,
                    variant,
                    out,
                    advance,
                    force=handling.force,
                    strict=refuse_fallback,
                    verify=handling.verify,
                )
                manifest = done.artifact.manifest
                size, weights = sum(item.bytes for item in manifest.outputs), manifest.weights
                note, verified = _note(done), done.verified and done.verified.note
                facts = {"model": source.label, "artifact": str(folder), "bytes": size}
                log.info("exported", extra={**facts, "reused": done.reused})
        bpw = weights["effective_bpw"]
        label = f"{form.name:5}{variant.name:9}"
        click.echo(f"{label}{size / 1e6:9.1f} MB{bpw:8.2f} bits/weight  {folder}{note}")
        lines = {
            "types": classes_text(weights),
            "fallback": fallback_text(weights),
            "verified": verified,
        }
        for title, text in lines.items():
            if text is not None:
                click.echo(f"     {title}: {text}")
    return source, folders


def _note(done: Outcome) -> str:
    if done.reused:
        return "  (unchanged, reused)"
    return f"  (verified: {done.verified.tensors} tensors)" if done.verified else ""


def run_main(command: Callable[..., Any]) -> NoReturn:
    """Entry of `python -m`: a closed pipe is not an error."""
    try:
        command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
