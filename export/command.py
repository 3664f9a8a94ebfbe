"""The command line that all exporters share: options, progress, one-line errors, exit codes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from export.errors import GateError, InputError
from export.format import Advance, Format

MODEL_HELP = (
    "Hub id (org/name), checkpoint folder, .gguf file, or 'bundled' (real SmolLM2-135M-Instruct)."
)


class EdgeproofCommand(click.Command):
    """A click command whose `InputError` becomes one line and exit code 2, `GateError` 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command inside the error boundary."""
        try:
            return super().invoke(ctx)
        except (InputError, GateError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


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


def size_text(count: int) -> str:
    """Bytes as decimal megabytes, as download pages show them."""
    return f"{count / 1e6:.1f} MB"


def format_command(form: Format, example: str) -> click.Command:
    """The command `python -m export.<format>`."""
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
    @click.option(
        "--out",
        "-o",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("artifacts"),
        show_default=True,
        help="Root folder; the artifact is OUT/<model>/<format>/<dtype>.",
    )
    @click.option("--force", is_flag=True, help="Write again even if nothing changed.")
    def command(
        model: str, revision: str | None, dtypes: tuple[str, ...], out: Path, force: bool
    ) -> None:
        wanted = [part for value in dtypes for part in value.split(",") if part]
        export_variants(model, revision, [(form, wanted)], out, force=force)

    return command


def export_variants(
    model: str,
    revision: str | None,
    requests: Sequence[tuple[Format, Sequence[str]]],
    out: Path,
    *,
    force: bool = False,
) -> None:
    """Resolve a model once and export the requested variants, one printed line each.

    Raises:
        InputError: an unknown dtype (before anything is written), or a bad model.
    """
    from export import job
    from export.checkpoint import open_checkpoint
    from export.sources import resolve

    variants = [(form, form.variant(name)) for form, names in requests for name in names]
    source = resolve(model, revision)
    checkpoint = open_checkpoint(source.path)
    identity = job.identify(source, checkpoint)
    for form, variant in dict.fromkeys(variants):
        label = f"{form.name} {variant.name}"
        with progress(label, checkpoint.parameter_count) as advance:
            outcome = job.run(
                source, checkpoint, identity, form, variant, out, advance, force=force
            )
        manifest = outcome.artifact.manifest
        click.echo(
            f"{label:14} {size_text(sum(item.bytes for item in manifest.outputs)):>10}"
            f"  {manifest.effective_bpw:6.2f} bpw  {outcome.artifact.path}"
            f"{'  (unchanged, reused)' if outcome.reused else ''}"
        )


def run_main(command: Callable[..., Any]) -> NoReturn:
    """Entry of `python -m`: never a traceback for a closed pipe or Ctrl-C."""
    try:
        command()
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(0)
