"""Where everything lies that can be made again: converted checkpoints, captures, compiled code."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic

LOCKS = "locks"  # of what is being written; see `edgeproof.files.lock`


def cache_folder() -> Path:
    """The user's cache folder for edgeproof; `EDGEPROOF_CACHE` overrides it."""
    return Path(os.environ.get("EDGEPROOF_CACHE") or platformdirs.user_cache_path("edgeproof"))


def cache_contents() -> dict[Path, int]:
    """What lies in the cache, kind by kind: each kind's folder and its bytes, in order of names."""
    root = cache_folder()
    kinds = sorted(path for path in root.iterdir() if path.name != LOCKS) if root.is_dir() else []
    sizes = {kind: sum(_sizes(kind)) for kind in kinds if kind.is_dir()}
    return {kind: size for kind, size in sizes.items() if size}


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of each file; those that are removed meanwhile have none."""
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  200,000 of them


def keep_file(path: Path, kind: str) -> str:
    """Copy a file that a recipe depends on into the cache; returns its SHA-256, for `kept_file`.

    So what is written is what the recipe says, even if the file changes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(data).hexdigest()
    write_atomic(kept_file(digest, kind), data)
    return digest


def kept_file(digest: str, kind: str) -> Path:
    """Where `keep_file` has put the file of that SHA-256; `kind` names the folder."""
    return cache_folder() / kind / digest
