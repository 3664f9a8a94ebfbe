"""The page's section on tasks, also put into a page that is there: tasks are run after it.

A page has two comments where it belongs. No text in it can look like them: all of it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeproof.files.atomic import write_atomic
from edgeproof.verdicts import ParityReport, TaskScore
from edgeproof.verdicts.task_table import EXPLAINED, TITLES, cells, run_text

TEMPLATE = "tasks.html.j2"
BEGIN, END = "<!-- tasks -->", "<!-- /tasks -->"


def mean_kls(report: ParityReport) -> dict[str, float | None]:
    """Each artifact's mean KL, by the SHA-256 of its manifest."""
    found = {item.manifest: item.metrics.get("mean_kl") for item in report.compared}
    return {manifest: mean.value if mean else None for manifest, mean in found.items()}


def tasks_section(scores: Sequence[TaskScore], kl: Mapping[str, float | None]) -> str:
    """The section as HTML, in its comments: of the artifacts that `kl` names; empty for none."""
    shown = [score for score in scores if score.manifest in kl]
    blocks: dict[str, list[_Row]] = {}
    for score in shown:
        export, _, metric, *rest = cells(score, kl[score.manifest])
        row = _Row(export, [_parts(cell) for cell in rest])
        blocks.setdefault(f"{score.task}, {metric}: {score.asked}", []).append(row)
    environment = Environment(
        loader=PackageLoader("runtimes.parity.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = {"titles": TITLES[3:], "blocks": sorted(blocks.items()), "ran": run_text(shown)}
    plain = EXPLAINED.replace("*", "")
    template = environment.get_template(TEMPLATE)
    body = template.render(context, explained=plain) if shown else ""
    return f"{BEGIN}\n{body}{END}"


@dataclass(frozen=True)
class _Row:
    """An export's cells below a task's metric, each as a value and its interval, empty for none."""

    export: str
    cells: list[tuple[str, str]]


def _parts(cell: str) -> tuple[str, str]:
    value, bracket, rest = cell.partition(" [")
    return value, bracket.strip() + rest


def update_page(page: Path, section: str) -> bool:
    """Put a section into a page in place of the one that is there; False where it has no place.

    Raises:
        InputError: it cannot be written.
    """
    try:
        text = page.read_text("utf-8")
    except (OSError, UnicodeError):
        return False
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return False
    write_atomic(page, f"{before}{section}{after}".encode())
    return True
