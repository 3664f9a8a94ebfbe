"""Every file that a parity run writes, in one place: which there are, and where they go."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.atomic import storage_errors, write_atomic
from edgeproof.verdicts import EVALUATION, PAGE, TaskScore, read_scores
from runtimes.parity.report.html import models_page, page
from runtimes.parity.report.json import write_json
from runtimes.parity.report.junit import write_junit
from runtimes.parity.report.markdown import markdown
from runtimes.parity.result import ModelResult

log = logging.getLogger(__name__)


def write_reports(result: ModelResult, target: Path, with_page: bool) -> list[Path]:
    """Write one model's `parity.json` and, beside it, the page; the paths."""
    write_json(target, result)
    if not with_page:
        return [target]
    beside = target.with_suffix(".html")
    write_atomic(beside, page(result, scores=_scores(target)).encode())
    return [target, beside]


def _scores(target: Path) -> tuple[TaskScore, ...]:
    """Those beside a report; what cannot be read is left out of the page, and said."""
    try:
        return read_scores(target.with_name(EVALUATION))
    except InputError as error:
        log.warning("%s", error)
        return ()


def write_models_page(results: Sequence[ModelResult], reports: Sequence[Path], root: Path) -> Path:
    """Write the page over all models into `root`, below which their `parity.json` lie; its path."""
    pages = [path.with_suffix(".html").relative_to(root).as_posix() for path in reports]
    target = root / PAGE
    write_atomic(target, models_page(results, pages).encode())
    return target


def write_summaries(
    results: Sequence[ModelResult],
    junit: Path | None,
    markdown_path: Path | None,
    step_summary: Path | None,
) -> None:
    """Write what CI shows of all models together; `step_summary` is appended to."""
    if junit:
        write_junit(junit, results)
    if markdown_path:
        write_atomic(markdown_path, markdown(results).encode())
    if step_summary:
        with storage_errors(step_summary), step_summary.open("a", encoding="utf-8") as file:
            file.write(markdown(results))
