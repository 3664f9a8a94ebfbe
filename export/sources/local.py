"""A checkpoint folder on this disk.

Invariant: the name that goes into files' bytes never comes from where the folder lies.
"""

from __future__ import annotations

from pathlib import Path

from edgeproof.json_text import parse_json
from export.sources.source import HUB_ID, Source


def resolve_local(path: Path) -> Source:
    """The folder itself; its content is checked by whoever opens it.

    `name` is the one that `_name_or_path` of config.json records, where that is a hub id; the
    repository stays unknown, since a fine-tuned copy keeps the line of the model it started from.
    """
    return Source(path, label=path.resolve().name or "model", name=_recorded_name(path))


def _recorded_name(path: Path) -> str | None:
    try:
        recorded = parse_json((path / "config.json").read_text("utf-8")).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None  # opening the checkpoint says what is wrong with the file
    if isinstance(recorded, str) and HUB_ID.fullmatch(recorded):
        return recorded.split("/")[1]
    return None
