"""Whether something that a user names is on this disk."""

from __future__ import annotations

from pathlib import Path


def on_disk(name: str) -> bool:
    """Whether it is a file or folder here; what no system could have as a path is not."""
    try:
        return bool(name) and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, unreadable, no such user, a NUL
        return False
