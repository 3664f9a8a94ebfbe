"""`resolve`: hub id, local folder, .gguf file or `bundled` → a checkpoint folder here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from export.errors import InputError

BUNDLED = "bundled"


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


def cache_folder() -> Path:
    """Where edgeproof keeps what it can make again; `EDGEPROOF_CACHE` overrides it."""
    return Path(os.environ.get("EDGEPROOF_CACHE") or platformdirs.user_cache_path("edgeproof"))


def resolve(model: str, revision: str | None = None) -> Source:
    """Find the model, downloading or converting it into the cache where needed.

    Args:
        model: `bundled`, a checkpoint folder, a `.gguf` file, or a hub id `org/name`.
        revision: branch, tag or commit; only for hub ids.

    Raises:
        InputError: nothing is there, it cannot be reached, or it is not a supported model.
    """
    raise InputError(f"{model}: not implemented")
