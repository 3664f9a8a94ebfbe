"""How far a run is: on a terminal the whole matrix, elsewhere a line for each step that ends.

With `--log-json` each event is a record of its own.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING

import click

from edgeproof.display import duration, errors_on_terminal, printable
from edgeproof.steps.executors.executor import Begun, Event
from edgeproof.steps.step import Kind, Step

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

REDRAWN = 2  # times a second
BESIDE = 6  # lines of a terminal that the matrix leaves to others
COLUMNS = {Kind.EXPORT: "export", Kind.FOOTPRINT: "footprint", Kind.MEASURE: "compare"}

log = logging.getLogger(__name__)


class Status(str, Enum):
    """What a step is at; those that people look for first are first."""

    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    STORED = "stored"  # before the run began


@dataclass(frozen=True)
class State:
    """A step's status: since when or for how long, who, and why."""

    status: Status
    seconds: float = 0.0
    where: str = ""
    reason: str = ""


class Progress:
    """The states of all steps, told by events."""

    def __init__(self, steps: Sequence[Step], begun: float) -> None:
        """`begun` is when the command began, before anything was planned: `time.monotonic`."""
        self.steps = steps
        self.states = {step.key: State(Status.WAITING) for step in steps}
        self._begun = begun
        self._ended = 0

    @property
    def gone(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self._begun

    def tell(self, event: Event) -> None:
        """Take an event, and log it."""
        step = event.step
        facts = {"kind": step.kind.value, "model": step.model, "step": step.label, "key": step.key}
        if isinstance(event, Begun):
            self.states[step.key] = State(Status.RUNNING, time.monotonic(), event.where)
            log.info("step begun", extra={**facts, "where": event.where})
            return
        outcome = event.outcome
        status = Status.STORED if outcome.reused else Status.DONE
        if outcome.failed is not None:
            status = Status.FAILED
        reason = printable(outcome.failed or "")
        self.states[step.key] = State(status, outcome.seconds, outcome.where, reason)
        self._ended += 1
        log.info("step ended", extra={**facts, **asdict(outcome), "status": status.value})

    def line(self, event: Event) -> str | None:
        """What a log has of an event; None for what it leaves out."""
        if isinstance(event, Begun):
            return None
        step, state = event.step, self.states[event.step.key]
        name = f"[{self._ended}/{len(self.steps)}] {step.model}: {step.kind.value} {step.label}"
        if state.status is Status.FAILED:
            return f"{name}: FAILED, {state.reason} ({state.where or 'not begun'})"
        took = f"{state.status.value}, {state.seconds:.1f} s"
        return f"{name}: {took} ({state.where})"

    def summary(self) -> str:
        """All of it in a line."""
        counts = Counter(state.status for state in self.states.values())
        parts = [f"{counts[status]} {status.value}" for status in Status if counts[status]]
        return f"{len(self.steps)} steps: {', '.join(parts)}; {duration(self.gone)} gone"


@contextlib.contextmanager
def shown(progress: Progress) -> Iterator[None]:
    """The matrix while the block lasts, where stderr is a terminal."""
    if not errors_on_terminal():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    view = _Matrix(progress)
    with Live(view, console=Console(stderr=True), transient=True, refresh_per_second=REDRAWN):
        yield


def say(progress: Progress, event: Event) -> None:
    """Tell of an event, in a line on stderr where no matrix is shown, or it has failed."""
    progress.tell(event)
    text = progress.line(event)
    failed = progress.states[event.step.key].status is Status.FAILED
    if text is not None and (failed or not errors_on_terminal()):
        click.echo(text, err=True)


class _Matrix:
    """Models × variants, a column for each kind of step, drawn anew each time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows: dict[tuple[str, str], dict[Kind, State]] = {}
        for step in self._progress.steps:
            row = rows.setdefault((step.model, step.label), {})
            row[step.kind] = self._progress.states[step.key]
        room = max(1, console.height - BESIDE)
        order = sorted(rows, key=lambda name: min(map(_urgency, rows[name].values())))
        yield _line(self._progress.summary())
        yield _table({name: rows[name] for name in order[:room]})
        if len(order) > room:
            yield _line(f"… and {len(order) - room} more")


def _urgency(state: State) -> int:
    return list(Status).index(state.status)


def _table(rows: dict[tuple[str, str], dict[Kind, State]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "", *COLUMNS.values()):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for (model, label), states in rows.items():
        # What is not of one export stands in the first column.
        whole = [state for kind, state in states.items() if kind not in COLUMNS]
        cells = [states.get(kind) for kind in COLUMNS]
        cells[0] = cells[0] or next(iter(whole), None)
        texts = (Text("" if state is None else _cell(state)) for state in cells)
        table.add_row(Text(printable(model)), Text(printable(label)), *texts)
    return table


def _cell(state: State) -> str:
    match state.status:
        case Status.RUNNING:
            return f"{state.where} {time.monotonic() - state.seconds:.0f} s"
        case Status.DONE:
            return f"{state.seconds:.0f} s"
        case Status.FAILED:
            return state.reason
    return "·" if state.status is Status.WAITING else state.status.value


def _line(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")
