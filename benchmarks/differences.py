"""What differs between two reports of the same artifacts, but for how long things took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtimes.parity.steps.timed import untimed


def reports_differ(first: Path, second: Path) -> Iterator[str]:
    """A line for each field that differs in `parity.json` of the models below two roots."""
    for path in sorted(first.glob("*/parity.json")):
        ours, theirs = (
            json.loads(json.dumps(untimed(json.loads(item.read_text()))).replace(str(root), "ROOT"))
            for item, root in ((path, first), (second / path.relative_to(first), second))
        )
        yield from _fields(ours, theirs, path.parent.name)


def _fields(first: Any, second: Any, place: str) -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from _fields(first.get(key), second.get(key), f"{place}.{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from _fields(a, b, f"{place}[{index}]")
    elif first != second:
        yield f"{place}: {first!r} and {second!r}"
