"""The option `--runtime` of commands that run artifacts in another runtime than the usual one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from runtimes.adapter import Adapter
from runtimes.formats import OURS
from runtimes.registry import other_adapters

F = TypeVar("F", bound=Callable[..., Any])
Wanted = Callable[[Adapter], bool]


def runtime_option(text: str, wanted: Wanted = lambda _: True) -> Callable[[F], F]:
    """`--runtime` with the names of the adapters `wanted`.

    Readers of other packages are loaded only once a runtime is asked for; the help has ours.
    """
    ours = (pair for reader in OURS.values() for pair in reader.others.items())
    return click.option(
        "--runtime",
        metavar=f"[{'|'.join(_names(ours, wanted))}]",
        callback=lambda context, parameter, value: _known(context, parameter, value, wanted),
        help=text,
    )


def _known(
    context: click.Context, parameter: click.Parameter, value: str | None, wanted: Wanted
) -> str | None:
    if value is None:
        return None
    names = _names(other_adapters().items(), wanted)
    return str(click.Choice(names).convert(value, parameter, context))


def _names(adapters: Iterable[tuple[str, Adapter]], wanted: Wanted) -> list[str]:
    return sorted({name for name, adapter in adapters if wanted(adapter)})
