"""The command line that all commands share: options of all, how they end, progress."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeproof.display import errors_on_terminal
from edgeproof.ending import KEPT, Session, end, told_of_its_end
from edgeproof.extras import optional_packages
from edgeproof.log import log_as_json


class NamedPath(click.Path):
    """A path that names something: neither nothing nor what no system can name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty text and a NUL."""
        if value in ("", b"") or (isinstance(value, str) and "\0" in value):
            self.fail(f"{value!r} is no path", param, ctx)
        return super().convert(value, param, ctx)


class Named(click.types.StringParamType):
    """What names a model, a file or a revision of one: any text but an empty one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse it: as a path it would be the folder that one is in."""
        if value == "":
            self.fail("'' names nothing", param, ctx)
        return super().convert(value, param, ctx)


NAMED = Named()


class FiniteRange(click.FloatRange):
    """A range of numbers that NaN and infinity, which no limit keeps out, are not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse them."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no number", param, ctx)
        return number


# What click has → the same with a rule of ours.
SHARPER: dict[type[Any], type[Any]] = {
    click.Path: NamedPath,
    click.FloatRange: FiniteRange,
}


def sharpen(parameters: Iterable[click.Parameter]) -> None:
    """Have parameters that take a path take what names something, and of numbers finite ones.

    Arguments of any text name something too; options whose text does are of the type `NAMED`.
    """
    for parameter in parameters:
        if isinstance(parameter, click.Argument) and parameter.type is click.STRING:
            parameter.type = NAMED
        rule = SHARPER.get(type(parameter.type))
        if rule is not None:
            sharper = rule()
            vars(sharper).update(vars(parameter.type))
            parameter.type = sharper


class Ending(click.Command):
    """A command that ends as `edgeproof.ending` says, however it was begun."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit; without `standalone_mode` errors are for the caller."""
        session = Session()
        run = partial(
            super().main, args, prog_name, complete_var, False, windows_expand_args, obj=session,
            **extra,
        )  # fmt: skip
        if not standalone_mode:
            return run()
        sys.exit(end(run, session))

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments."""
        with told_of_its_end():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with told_of_its_end():
            return super().invoke(ctx)


class EdgeproofGroup(Ending, click.Group):
    """A group of commands that ends as they do."""


class EdgeproofCommand(Ending):
    """A command with `--log-json` and `--debug`, which says which extra a missing package is of.

    `kept` is what an end before its time leaves, and how to go on. One that `takes_interrupts` is
    told of Ctrl-C by a KeyboardInterrupt, and goes on.
    """

    def __init__(
        self, *arguments: Any, kept: str = KEPT, takes_interrupts: bool = False, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._kept, self._takes_interrupts = kept, takes_interrupts
        self.params += [
            click.Option(
                ["--log-json"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_log_json,
                help="Write what happens to stderr as JSON lines, for machines.",
            ),
            click.Option(
                ["--debug"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_debug,
                help="Show where in the program an error arose.",
            ),
        ]

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments; from then on it says what an end would leave."""
        sharpen(self.params)
        context = super().make_context(info_name, args, parent, **extra)
        session = context.ensure_object(Session)
        session.kept, session.takes_interrupts = self._kept, self._takes_interrupts
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an extra that is missing is an error of ours."""
        with optional_packages():
            return super().invoke(ctx)


def _log_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        log_as_json()
        context.ensure_object(Session).logs_json = True


def _debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Session).debug = value


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
    if not errors_on_terminal():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
