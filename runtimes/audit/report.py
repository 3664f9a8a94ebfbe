"""An audit for people and for programs: what is in each file, then how they rank."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgeproof.display import markdown_row, markdown_text, megabytes, number, printable
from edgeproof.verdicts import Verdict
from runtimes.audit.description import hashed, sha256_of_all
from runtimes.audit.inspection import Inspection
from runtimes.audit.ranking import Ranked
from runtimes.audit.subjects import Found, Refused
from runtimes.parity.report.document import document
from runtimes.parity.report.json import finite
from runtimes.parity.result import ModelResult, Unreadable

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
LONGEST = 300  # characters of a value
KINDS = 6  # so many types are told, the most frequent ones
TITLES = ("", "file", "MB", "bits/w", "KL", "95 % interval", "behind the first", "verdict", "wrong")


def inspection_lines(found: Inspection) -> Iterator[str]:
    """What is in one file, a fact in a line."""
    shares = list(found.shares.items())
    types = ", ".join(f"{name} {share:.1%}" for name, share in shares[:KINDS])
    more = f" and {len(shares) - KINDS} more" if len(shares) > KINDS else ""
    label = f", called {found.label}" if found.label else ""
    yield f"{megabytes(found.on_disk)} MB, {found.bits:.2f} bits per weight{label}"
    yield f"gates of: {found.precision.value}, what most weights of its linear layers are"
    yield f"types: {types}{more}"
    if found.origin:
        yield f"from the hub: {found.origin.repo}, commit {found.origin.commit}"
    for key, value in found.says.items():
        yield f"{key}: {_shown(value)}"
    for warning in found.warnings:
        yield f"warning: {_shown(warning)}"
    if found.broken:
        yield f"broken: {_shown(found.broken)}"


def _shown(text: str) -> str:
    """Foreign text in one line, not too long."""
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
    return printable(cut)


def ranking_rows(
    ranking: Sequence[Ranked], inspected: Mapping[str, Inspection]
) -> Iterator[list[str]]:
    """A row of each file, under `TITLES`."""
    for place, item in enumerate(ranking, 1):
        entry = item.entry
        name = entry.artifact.manifest.variant.name
        kl = item.kl
        known = kl is not None and kl.known
        yield [
            str(place),
            entry.name,
            megabytes(entry.bytes),
            f"{entry.artifact.manifest.effective_bpw:.2f}",
            number(kl.value) if kl else "–",
            f"{number(kl.low)}–{number(kl.high)}" if kl and known else "–",
            _behind(item, first=place == 1),
            entry.judgement.verdict.value,
            "; ".join(_wrong(item, inspected[name])) or "nothing",
        ]


def unreadable_rows(items: Sequence[Unreadable]) -> Iterator[list[str]]:
    """A row of each file that no runtime could open, under `TITLES`."""
    blank = ["–"] * (len(TITLES) - 4)
    for item in items:
        yield ["–", item.folder, *blank, Verdict.FAIL.value, item.reason]


def ranking_table(rows: Sequence[Sequence[str]]) -> Table:
    """For the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Closest first", title_justify="left", box=box.SIMPLE_HEAD)
    for title in TITLES:
        table.add_column(
            title, justify="left" if title in ("file", "verdict", "wrong") else "right"
        )
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table


def markdown(rows: Sequence[Sequence[str]], against: str) -> str:
    """The ranking for a model card or a CI summary."""
    head = [markdown_row(TITLES), markdown_row(["---"] * len(TITLES))]
    plain = (markdown_row(map(markdown_text, row)) for row in rows)
    lines = [f"Compared with {markdown_text(against)} by edgeproof.", "", *head, *plain]
    return "\n".join(lines) + "\n"


def audit_json(
    found: Found,
    against: str | None,
    result: ModelResult | None,
    ranking: Sequence[Ranked],
    day: str,
) -> str:
    """All of it; `parity` is as in parity.json, and null where nothing was run."""
    data = {
        "schema": SCHEMA,
        "date": day,
        "against": against,
        "files": [_inspected(item) for item in found.inspected],
        "refused": [_told(item) for item in found.refused],
        "passed_over": [_told(item) for item in found.passed_over],
        "ranking": [
            {
                "name": item.entry.artifact.manifest.variant.name,
                "verdict": item.entry.judgement.verdict.value,
                "behind": asdict(item.behind) if item.behind else None,
            }
            for item in ranking
        ],
        "parity": asdict(document(result)) if result else None,
    }
    return json.dumps(finite(data), indent=2, allow_nan=False) + "\n"


def _told(item: Refused) -> dict[str, str]:
    return {"path": str(item.path), "reason": item.reason}


def _inspected(item: Inspection) -> dict[str, Any]:
    origin, files = item.origin, hashed(item)
    return {
        "name": item.name,
        "format": item.format,
        "path": str(item.subject),
        "hub": {"repo": origin.repo, "commit": origin.commit} if origin else None,
        "files": [asdict(file) for file in files],
        "sha256": sha256_of_all(files),
        "bytes": item.on_disk,
        "label": item.label,
        "precision": item.precision.value,
        "parameters": item.parameters,
        "effective_bpw": round(item.bits, 4),
        "types": item.stats.types,
        "classes": item.stats.classes,
        "says": dict(item.says),
        "warnings": list(item.warnings),
        "broken": item.broken,
    }


def _behind(item: Ranked, *, first: bool) -> str:
    if first or item.behind is None:
        return "–"
    if not item.behind.known:
        return "too little text"
    text = f"+{number(item.behind.value)}" if item.behind.value > 0 else number(item.behind.value)
    return text if item.apart else f"{text}, not told apart"


def _wrong(item: Ranked, found: Inspection) -> list[str]:
    return [*item.entry.judgement.reasons, *found.warnings]
