"""The Markdown summary: for a file, and for the step summary of a GitHub workflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from export.display import markdown_row as _row
from export.display import markdown_text as _plain
from export.display import megabytes
from runtimes.parity.report.columns import COLUMNS
from runtimes.parity.result import ModelResult, smallest_passing


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
        for kind, lines in (("", entry.judgement.reasons), ("note: ", entry.judgement.notes)):
            for line in lines:
                yield f"- **{_plain(entry.name)}**: {kind}{_plain(line)}"
    yield ""
