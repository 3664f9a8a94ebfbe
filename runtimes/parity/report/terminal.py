"""The parity report on a terminal: the table of verdicts, the reasons, then what to ship."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeproof.display import megabytes, printable
from edgeproof.verdicts import Verdict
from runtimes.parity.advice import advise
from runtimes.parity.headroom import room_text
from runtimes.parity.report.advice import SUMMARY_TITLES, advice_lines, summary_rows
from runtimes.parity.report.columns import columns, part_text
from runtimes.parity.report.speeds import speed_warning
from runtimes.parity.report.where import where_lines
from runtimes.parity.result import ModelResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FULL_WIDTH = 180
COLOURS = {
    Verdict.PASS: "green",
    Verdict.DEGRADED: "yellow",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "magenta",
}


def print_result(console: Console, result: ModelResult) -> None:
    """What to ship; the table, each artifact's reasons and notes, float16's room; other advice."""
    (ship, recommended), *others = advice_lines(advise(result.entries)).items()
    if recommended:
        console.print(f"{_shown(result.label)}: {ship[0].lower()}{ship[1:]}:")
    for line in recommended:
        console.print(f"  - {_shown(line)}")
    console.print(terminal_table(result, console.width))
    for entry in result.entries:
        lines = (
            *entry.judgement.reasons,
            *where_lines(entry.localisation),
            *(f"note: {n}" for n in entry.judgement.notes),
        )
        if lines:
            console.print(f"{_shown(entry.name)}: {entry.judgement.verdict.value}")
        for line in lines:
            console.print(f"  - {_shown(line)}")
    for item in result.unreadable:
        console.print(f"{_shown(item.folder)}: FAIL")
        console.print(f"  - not compared: {_shown(item.reason)}")
    warning = speed_warning(result.entries)
    if warning is not None:
        console.print(_shown(warning))
    console.print(f"float16 headroom: {room_text(result.reference.peaks)}")
    for heading, sentences in others:
        if sentences:
            console.print(f"{heading}:")
        for line in sentences:
            console.print(f"  - {_shown(line)}")


def _shown(text: str) -> str:
    """Text that files may have had a part in: no markup, and nothing that moves a cursor."""
    from rich.markup import escape

    return escape(printable(text))


def print_summary(console: Console, results: Sequence[ModelResult]) -> None:
    """What to ship of each model."""
    from rich import box
    from rich.table import Table

    table = Table(title="All models", title_justify="left", box=box.SIMPLE_HEAD)
    for name in SUMMARY_TITLES:
        table.add_column(name, justify="right" if name == "MB" else "left")
    for row in summary_rows(results):
        table.add_row(*map(_shown, row))
    console.print(table)


def terminal_table(result: ModelResult, width: int) -> Table:
    """The readable summary; below `FULL_WIDTH` characters only the essential columns."""
    from rich import box
    from rich.table import Table

    shown = [column for column in columns() if column.essential or width >= FULL_WIDTH]
    positions = result.reference.positions
    title = (
        f"{_shown(result.label)}: exports against {result.reference.whose}PyTorch fp32,"
        f" {positions} positions, KL in nats"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("export", no_wrap=True)
    for name in ("MB", "bits/w", *(column.title for column in shown)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for entry in result.entries:
        verdict = entry.judgement.verdict
        # In a note below, too, where there is no room for it here.
        part = part_text(entry.measurement) if width >= FULL_WIDTH else ""
        table.add_row(
            _shown(entry.name),
            megabytes(entry.bytes),
            f"{entry.artifact.manifest.effective_bpw:.2f}",
            *(column.text(entry.measurement) if entry.measurement else "" for column in shown),
            f"[{COLOURS[verdict]}]{verdict.value}[/]{' (allowed)' if entry.excused else ''}"
            f"{f', {part}' if part else ''}",
        )
    return table
