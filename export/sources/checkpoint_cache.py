"""Checkpoints that were made on this machine, in the cache: each is made once.

Invariant: a folder in the cache is complete, and its name is a digest of everything that decides
its bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.files.atomic import atomic_folder, write_atomic
from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.once import once
from edgeproof.files.own import WrongJsonError, json_object, typed

RECORD = "conversion.json"


@dataclass(frozen=True)
class Converted:
    """A checkpoint in the cache, and the name of the model as its source gives it."""

    path: Path
    name: str | None


def cached(stem: str, recipe: Any, write: Callable[[Path], str | None]) -> Converted:
    """The checkpoint of a recipe, written now if the cache does not have it.

    Args:
        stem: readable first part of the folder's name; it decides no bytes.
        recipe: everything that decides the bytes, as JSON.
        write: fills an empty folder; returns the model's name.

    Raises:
        InputError: the disk is full, or what `write` raises.
    """
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII)[:64].strip(".-") or "model"
    target = cache_folder() / "checkpoints" / f"{readable}-{key}"
    place = target if target.is_dir() else usable(target)
    return once(place, lambda: _complete(place), lambda: _make(place, write))


def _complete(target: Path) -> Converted | None:
    try:
        record = typed(_Record, json_object((target / RECORD).read_bytes()))
        if any((target / name).stat().st_size != size for name, size in record.files.items()):
            return None
    except (OSError, WrongJsonError):
        return None
    return Converted(target, record.name)


@dataclass(frozen=True)
class _Record:
    """`files` are names and bytes."""

    name: str | None
    files: dict[str, int]


def _make(target: Path, write: Callable[[Path], str | None]) -> Converted:
    with atomic_folder(target) as folder:
        name = write(folder)
        _write_record(folder, name)
    return Converted(target, name)


def _write_record(folder: Path, name: str | None) -> None:
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    record: dict[str, Any] = {"name": name, "files": files}
    write_atomic(folder / RECORD, json.dumps(record, indent=2).encode())
