"""A command that runs itself in a process of its own, and survives that one's crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeproof.command import EdgeproofCommand
from runtimes.parity.watch import watch

ARGUMENTS = "edgeproof.arguments"  # in a command's context
F = TypeVar("F", bound=Callable[..., Any])


def watched_options(what: str) -> Callable[[F], F]:
    """`--watch`, and what `watch` tells the process that it watches; `what` may make it crash."""
    options = (
        click.option(
            "--watch/--no-watch",
            default=True,
            show_default=True,
            envvar="EDGEPROOF_WATCH",
            help=f"Compare in a process of its own: a library that crashes over {what} is a FAIL"
            " of that one, and the run is begun again without it.",
        ),
        click.option("--journal", type=click.Path(path_type=Path), hidden=True),
        click.option("--crashed", type=(str, str, str), multiple=True, hidden=True),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class WatchedCommand(EdgeproofCommand):
    """One with `watched_options`; `module` is what it runs again.

    See `runtimes.parity.watch`.
    """

    def __init__(self, *arguments: Any, module: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._module = module

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they were typed."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Watch, or be watched."""
        if not ctx.params.pop("watch") or ctx.params["journal"] is not None:
            return super().invoke(ctx)
        return ctx.exit(watch(self._module, ctx.meta[ARGUMENTS]))
