"""A resolved model: where its checkpoint lies and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A resolved model.

    `path` is the checkpoint folder. `label` names the artifact folder and may come from a folder
    name; `name`, `repo` and `revision` go into the files' bytes and may not.
    """

    path: Path
    label: str
    name: str | None = None
    repo: str | None = None
    revision: str | None = None
