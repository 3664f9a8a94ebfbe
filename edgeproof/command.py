"""The command line that all commands share: one-line errors, exit codes, progress, `--log-json`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from edgeproof.errors import GateError, InputError
from edgeproof.extras import optional_packages
from edgeproof.log import log_as_json

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


def root_option(use: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The `--root` option of commands that find artifacts by the record of the last plan."""
    return click.option(
        "--root",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("artifacts"),
        show_default=True,
        help=f"Where `python -m export` wrote{use}.",
    )


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr where that is a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def run_main(command: Callable[..., Any]) -> NoReturn:
    """Entry of `python -m`: a closed pipe is not an error."""
    try:
        command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
