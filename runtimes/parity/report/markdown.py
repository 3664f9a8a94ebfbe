"""The Markdown summary: for a file, and for the step summary of a GitHub workflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeproof.display import markdown_row as _row
from edgeproof.display import markdown_text as _plain
from edgeproof.display import megabytes
from runtimes.parity.advice import advise
from runtimes.parity.report.advice import SUMMARY_TITLES, advice_lines, summary_rows
from runtimes.parity.report.columns import columns, part_text
from runtimes.parity.report.speeds import speed_warning
from runtimes.parity.report.where import where_lines
from runtimes.parity.result import ModelResult, smallest_passing


def markdown(results: Sequence[ModelResult]) -> str:
    """A table of all models, where there are several; then a section for each.

    What to ship, its verdicts, why they are not PASS, and what few bits cost.
    """
    lines = [*_summary(results)] if len(results) > 1 else []
    lines += [line for result in results for line in _section(result)]
    return "\n".join(lines)


def _summary(results: Sequence[ModelResult]) -> Iterable[str]:
    yield "## All models\n"
    yield from _table(SUMMARY_TITLES, summary_rows(results))
    yield ""


def _advice(advice: Iterable[tuple[str, Sequence[str]]]) -> Iterable[str]:
    for title, lines in advice:
        if lines:
            yield f"### {title}\n"
            yield from (f"- {_plain(line)}" for line in lines)
            yield ""


def _table(titles: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    yield _row(titles)
    yield _row(["---"] * len(titles))
    yield from (_row(map(_plain, row)) for row in rows)


def _section(result: ModelResult) -> Iterable[str]:
    reference = result.reference
    yield f"## Parity of {_plain(result.label)}: {'accepted' if result.accepted else 'refused'}\n"
    yield (
        f"{len(result.entries)} exports against {reference.whose}{_plain(reference.runtime)},"
        f" {reference.positions} positions ({_plain(reference.text.name)});"
        " KL in nats."
    )
    best = smallest_passing(result.entries)
    if best:
        yield f"Smallest that passes: **{_plain(best.name)}**, {megabytes(best.bytes)} MB."
    yield ""
    ship, *others = advice_lines(advise(result.entries)).items()
    yield from _advice([ship])
    shown = columns()
    titles = ("export", "verdict", "MB", "bits/w", *(column.title for column in shown))
    yield _row(titles)
    yield _row(("---", "---", *["---:"] * (len(titles) - 2)))
    for entry in result.entries:
        m = entry.measurement
        verdict = f"**{entry.judgement.verdict.value}**{' (allowed)' if entry.excused else ''}"
        part = part_text(m)
        verdict += f", {part}" if part else ""
        size = megabytes(entry.bytes), f"{entry.artifact.manifest.effective_bpw:.2f}"
        yield _row(
            (
                _plain(entry.name),
                verdict,
                *size,
                *(column.text(m) if m else "–" for column in shown),
            )
        )
    yield ""
    warning = speed_warning(result.entries)
    if warning is not None:
        yield f"{_plain(warning)}\n"
    for entry in result.entries:
        for kind, lines in (
            ("", entry.judgement.reasons),
            ("", where_lines(entry.localisation)),
            ("note: ", entry.judgement.notes),
        ):
            for line in lines:
                yield f"- **{_plain(entry.name)}**: {kind}{_plain(line)}"
    for item in result.unreadable:
        yield f"- **{_plain(item.folder)}**: FAIL, not compared: {_plain(item.reason)}"
    yield ""
    yield from _advice(others)
