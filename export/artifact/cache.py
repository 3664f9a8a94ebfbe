"""Where everything lies that can be made again: converted checkpoints, captures, compiled code."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder for edgeproof; `EDGEPROOF_CACHE` overrides it."""
    return Path(os.environ.get("EDGEPROOF_CACHE") or platformdirs.user_cache_path("edgeproof"))
