"""How numbers and foreign text are written where people read them: tables, Markdown."""

from __future__ import annotations

import html
import math
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# What Markdown or GitHub would read as markup, also inside a table's cell.
MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$@:-])")

# What begins a line, or what terminals obey.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Wide enough for every table where the output is not a terminal (CI logs).
PLAIN_WIDTH = 220
NARROWEST, WIDEST = 40, 10_000


def errors_on_terminal() -> bool:
    """Whether a person sees what goes to stderr as it is written; there may be none at all."""
    return sys.stderr is not None and sys.stderr.isatty()


def table_console() -> Console:
    """Where tables are printed: as wide as COLUMNS says or the terminal is, or wide without one."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal():
        return Console(width=min(max(int(columns), NARROWEST), WIDEST))
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def number(value: float) -> str:
    """Three decimals, or two digits where that would show nothing; a dash for no number."""
    if math.isnan(value):
        return "–"
    return f"{value:.1e}" if abs(value) < 1e-2 else f"{value:.3f}"


def errors_text(share: float, low: float, positions: int) -> str:
    """How many of the positions are wrong: those that a share leaves, and what the rest may hide.

    `low` is the lower end of the share's interval; NaN where it has none. A dash for no share.
    """
    if math.isnan(share):
        return "–"
    counted = f"{round((1 - share) * positions):,} of {positions:,}"
    if math.isnan(low):
        return counted
    bound = 100 * (1 - low)
    return f"{counted} (95 % upper bound {f'{bound:.2g}' if bound < 10 else f'{bound:.0f}'} %)"


def printable(text: str) -> str:
    """Foreign text in one line of a terminal: what moves its cursor or colours it is a `?`."""
    return "".join(char if char.isprintable() else "?" for char in text)


def one_line(text: str) -> str:
    """Text with names of strangers: line ends and what terminals obey are escaped."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def megabytes(size: int) -> str:
    """Millions of bytes."""
    return f"{size / 1e6:.1f}"


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def markdown_text(text: str) -> str:
    """Text that stays what it is in Markdown: one line, no markup, no HTML."""
    one_line = " ".join(text.split())
    return MARKUP.sub(r"\\\1", html.escape(one_line, quote=False))


def duration(seconds: float) -> str:
    """About how long something takes, in words: no finer than it can be known."""
    return f"{round(seconds / 60)} min" if seconds >= 90 else f"{round(seconds, -1):.0f} s"
