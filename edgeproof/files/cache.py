"""Where everything lies that can be made again: converted checkpoints, captures, compiled code.

It is help, never a condition: what cannot be written there is made all the same, and not kept.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.space import stored_bytes

LOCKS = "locks"  # of what is being written; see `edgeproof.files.lock`
ANOTHER = "EDGEPROOF_CACHE names another folder"

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The user's cache folder for edgeproof; `EDGEPROOF_CACHE` overrides it.

    Where nobody may look there, a folder that goes when this process ends.
    """
    root = Path(os.environ.get("EDGEPROOF_CACHE") or platformdirs.user_cache_path("edgeproof"))
    try:
        root.exists()
    except OSError:
        return _stand_in(root) or root
    return root


def usable(path: Path) -> Path:
    """Where that of the cache is to be written which belongs at `path`.

    It is `path`; or, where the cache cannot be written, a place of the same name in a folder that
    goes when this process ends. That is said once.
    """
    root = cache_folder()
    stand_in = _stand_in(root) if path.is_relative_to(root) else None
    return path if stand_in is None else stand_in / path.relative_to(root)


def keep(path: Path, data: bytes) -> None:
    """Have a later run find bytes at `path` of the cache; where they cannot be written, not."""
    if usable(path) != path:
        return
    try:
        write_atomic(path, data)
    except InputError as error:
        _say_once(f"{error}; going on without it: {ANOTHER}")


@cache
def _stand_in(root: Path) -> Path | None:
    """A folder of this process in place of a cache that cannot be written; None where it can."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"full?")
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="edgeproof-cache-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _say_once(
            f"{root}: cannot be written ({error.strerror}); going on without it, and what would be"
            f" kept there goes when this command ends: {ANOTHER}"
        )
        return folder
    return None


@cache
def _say_once(text: str) -> None:
    log.warning("%s", text)


def cache_contents() -> dict[Path, int]:
    """What lies in the cache, kind by kind: each kind's folder and its bytes, in order of names."""
    root = cache_folder()
    kinds = sorted(path for path in root.iterdir() if path.name != LOCKS) if root.is_dir() else []
    sizes = {kind: stored_bytes(kind) for kind in kinds if kind.is_dir()}
    return {kind: size for kind, size in sizes.items() if size}


def keep_file(path: Path, kind: str) -> str:
    """Copy a file that a recipe depends on into the cache; its SHA-256, for `kept_file`.

    So what is written is what the recipe says, even if the file changes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(data).hexdigest()
    place = kept_file(digest, kind)
    if not place.is_file() or place.read_bytes() != data:
        write_atomic(place, data)
    return digest


def kept_file(digest: str, kind: str) -> Path:
    """Where `keep_file` has put the file of that SHA-256; `kind` names the folder."""
    place = cache_folder() / kind / digest
    return place if place.exists() else usable(place)
