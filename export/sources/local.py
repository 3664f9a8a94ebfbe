"""A checkpoint folder on this disk.

Invariant: the name that goes into files' bytes never comes from where the folder lies, nor is it
that of the model that this one was made from.
"""

from __future__ import annotations

import re
from pathlib import Path

from export.sources.source import Source

# Names of folders that say nothing of the model: a trainer's step, a commit in the hub's cache.
STEP = re.compile(r"checkpoint-\d+|[0-9a-f]{40}")
SNAPSHOTS, CACHED = "snapshots", "models--"


def resolve_local(path: Path) -> Source:
    """The folder itself; its content is checked by whoever opens it.

    It has no name, repository or revision: `_name_or_path` of config.json is what a fine-tuned copy
    started from, and a model of that name would pass for it.
    """
    return Source(path, label=_label(path.resolve()))


def _label(path: Path) -> str:
    """The folder's name, with that of the run where every run has such a folder."""
    parent = path.parent
    if parent.name == SNAPSHOTS and parent.parent.name.startswith(CACHED):
        return parent.parent.name.rpartition("--")[2] or path.name
    if STEP.fullmatch(path.name) and parent.name:
        return f"{parent.name}-{path.name}"
    return path.name or "model"
