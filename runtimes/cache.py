"""Where runtimes keep what they can make again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Edgeproof's cache folder, the exporters' too; `EDGEPROOF_CACHE` overrides it."""
    return Path(os.environ.get("EDGEPROOF_CACHE") or platformdirs.user_cache_path("edgeproof"))
