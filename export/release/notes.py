"""RELEASE_NOTES.md: what is in a release, and what changed since the previous one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeproof.display import markdown_row, markdown_text, megabytes, number
from export.release.record import Record

NOTES = "RELEASE_NOTES.md"
METRICS = (("mean_kl", "mean KL"), ("top1", "top-1"), ("acceptance", "acceptance"))
NEW, CHANGED, REMADE, SAME, GONE = "new", "changed", "same bytes, compared again", "unchanged", "–"


def release_notes(record: Record, previous: Record | None) -> bytes:
    """Markdown: a table of variants, with differences from `previous` where there is one."""
    return ("\n".join(_lines(record, previous)) + "\n").encode()


def _lines(record: Record, previous: Record | None) -> Iterator[str]:
    name = markdown_text(record["model"]["name"])
    yield f"# {name} {markdown_text(record['version'])}\n"
    if previous is None:
        yield "The first release.\n"
    else:
        yield f"Compared with {markdown_text(previous['version'])}.\n"
    titles = ("export", "state", "MB", "verdict", *(title for _, title in METRICS))
    yield markdown_row(titles)
    yield markdown_row(("---", "---", "---:", "---", *["---:"] * len(METRICS)))
    before = {_key(item): item for item in previous["variants"]} if previous else {}
    for item in record["variants"]:
        yield markdown_row(_cells(item, before.get(_key(item))))
    yield ""
    for key in sorted(before.keys() - {_key(item) for item in record["variants"]}):
        yield f"- `{key}` is no longer released."
    for item in record["variants"]:
        for reason in item["reasons"]:
            yield f"- `{_key(item)}` is {item['verdict']}: {markdown_text(reason)}"
    for parts in record["archives"].values():
        if len(parts) > 1:
            name = parts[0].rpartition(".")[0]
            yield f"- `{name}` has {len(parts)} parts; `cat {name}.* > {name}` joins them."
    if previous and previous["model"]["inputs"] != record["model"]["inputs"]:
        yield "- The checkpoint is another one than before."
    if previous and previous["parity"] != record["parity"]:
        yield "- Compared on another text or reference, which the differences include."


def state(item: dict[str, Any], before: dict[str, Any] | None) -> str:
    """What happened to a variant."""
    if before is None:
        return NEW
    if item["manifest"] != before["manifest"]:
        return CHANGED
    return SAME if _measured(item) == _measured(before) else REMADE


def _measured(item: dict[str, Any]) -> tuple[Any, Any]:
    return item["verdict"], item["metrics"]


def _key(item: dict[str, Any]) -> str:
    return f"{item['format']} {item['variant']}"


def _cells(item: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    yield f"`{_key(item)}`"
    yield state(item, before) if before else NEW
    size = megabytes(item["bytes"])
    change = item["bytes"] - before["bytes"] if before else 0
    yield f"{size} ({change / 1e6:+.1f})" if change else size
    was = before["verdict"] if before else item["verdict"]
    yield item["verdict"] if was == item["verdict"] else f"{item['verdict']} (was {was})"
    for metric, _ in METRICS:
        yield _delta(_value(item, metric), _value(before, metric) if before else None)


def _value(item: dict[str, Any], metric: str) -> float | None:
    value: float | None = item["metrics"].get(metric, {}).get("value")
    return value


def _delta(value: float | None, before: float | None) -> str:
    if value is None:
        return GONE
    if before is None or before == value:
        return number(value)
    sign = "+" if value > before else "−"
    return f"{number(value)} ({sign}{number(abs(value - before))})"
