"""The Markdown summary: for a file, and for the step summary of a GitHub workflow."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from runtimes.parity.report.columns import COLUMNS, megabytes
from runtimes.parity.report.where import where_lines
from runtimes.parity.result import ModelResult, smallest_passing

# What Markdown or GitHub would read as markup, also inside a table's cell.
MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$@:-])")


def markdown(results: Sequence[ModelResult]) -> str:
    """One section per model: the verdicts as a table, then why they are not PASS."""
    return "\n".join(line for result in results for line in _section(result))


def _section(result: ModelResult) -> Iterable[str]:
    reference = result.reference
    yield f"## Parity of {_plain(result.label)}: {'accepted' if result.accepted else 'refused'}\n"
    yield (
        f"{len(result.entries)} exports against {_plain(reference['runtime'])},"
        f" {reference['positions']} positions ({_plain(reference['text']['name'])});"
        " KL in nats."
    )
    best = smallest_passing(result.entries)
    if best:
        yield f"Smallest that passes: **{_plain(best.name)}**, {megabytes(best.bytes)} MB."
    yield ""
    titles = ("export", "verdict", "MB", "bits/w", *(column.title for column in COLUMNS))
    yield _row(titles)
    yield _row(("---", "---", *["---:"] * (len(titles) - 2)))
    for entry in result.entries:
        m = entry.measurement
        verdict = f"**{entry.judgement.verdict.value}**{' (allowed)' if entry.excused else ''}"
        size = megabytes(entry.bytes), f"{entry.artifact.manifest.effective_bpw:.2f}"
        yield _row(
            (
                _plain(entry.name),
                verdict,
                *size,
                *(column.text(m) if m else "–" for column in COLUMNS),
            )
        )
    yield ""
    for entry in result.entries:
        for kind, lines in (
            ("", entry.judgement.reasons),
            ("", where_lines(entry.localisation)),
            ("note: ", entry.judgement.notes),
        ):
            for line in lines:
                yield f"- **{_plain(entry.name)}**: {kind}{_plain(line)}"
    yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that stays what it is: one line, no markup, no HTML."""
    one_line = " ".join(text.split())
    return MARKUP.sub(r"\\\1", html.escape(one_line, quote=False))
