"""A resolved model: where its checkpoint lies and what it is called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# The hub's own rule for repository names: letters, digits, "-", "_", "." on both sides of "/".
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


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
