"""The live view of a run on a terminal: how far it is, what it is at, what comes next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from edgeproof.display import duration

BAR = 24  # columns
REDRAWN = 4  # times a second


@dataclass(frozen=True)
class Whole:
    """How far a run is.

    Attributes:
        done: artifacts that are.
        total: all.
        gone: gives the seconds since it began.
        left: about how long the rest takes, in words; empty where nothing tells.
        following: names of those that come next.
    """

    done: int
    total: int
    gone: Callable[[], float]
    left: str
    following: Sequence[str]


@contextlib.contextmanager
def shown(
    console: Console, whole: Whole, now: str, steps: int | None
) -> Iterator[Callable[[], None]]:
    """The view while a phase lasts, then nothing; what is given is called after each step."""
    count = (MofNCompleteColumn(),) if steps else ()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(BAR), *count)
    phase = Progress(*columns, TimeElapsedColumn())
    task = phase.add_task(now, total=steps)
    view = Group(phase, _Run(whole)) if whole.total else phase
    with Live(view, console=console, transient=True, refresh_per_second=REDRAWN):
        yield lambda: phase.advance(task)


class _Run:
    """Lines on all of a run, new each time they are drawn."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._whole
        times = [f"{duration(whole.gone())} gone", *([whole.left] if whole.left else [])]
        yield _line(f"run  {whole.done} of {whole.total} compared · {' · '.join(times)}")
        if whole.following:
            yield _line(f"next {', '.join(whole.following)}")


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
