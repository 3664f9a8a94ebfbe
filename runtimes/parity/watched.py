"""A command that runs itself in a process of its own, and survives that one's crashes."""

from __future__ import annotations

from typing import Any

import click

from edgeproof.command import EdgeproofCommand
from runtimes.parity.watch import watch

ARGUMENTS = "edgeproof.arguments"  # in a command's context


class WatchedCommand(EdgeproofCommand):
    """One with the options `--watch`, `--journal` and `--crashed`; `module` is what it runs again.

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
