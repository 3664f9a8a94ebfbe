"""Converted GGUF files in the cache: each is converted once.

Invariant: a folder in the cache is complete, and its name is a digest of everything that decides
its bytes: the file's content, the permutation and the version of the conversion.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.artifact.atomic import atomic_folder, write_atomic
from export.artifact.cache import cache_folder
from export.artifact.hashing import input_records
from export.artifact.lock import exclusive
from export.errors import InputError
from export.sources.gguf_split_names import split_paths

# Raise it when the converted bytes change.
CONVERSION = 3
RECORD = "conversion.json"


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint and the name that the GGUF's own metadata gives the model."""

    path: Path
    name: str | None


def converted(gguf: Path, stem: str, permutation_seed: str | None = None) -> Converted:
    """The checkpoint made from a GGUF file, converted now if the cache does not have it.

    Args:
        gguf: the file, or any one of its splits.
        stem: readable first part of the cache folder's name; it decides no bytes.
        permutation_seed: permute the residual stream with this seed.

    Raises:
        InputError: the file is not a supported model, or the cache cannot be written.
    """
    try:
        records = input_records(split_paths(gguf), cache_folder() / "digests")
    except OSError as error:
        raise InputError(f"{gguf}: cannot be read ({error.strerror})") from None
    recipe = json.dumps([CONVERSION, [item.sha256 for item in records], permutation_seed])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII)[:64].strip(".-") or "model"
    target = cache_folder() / "checkpoints" / f"{readable}-{key}"
    return _complete(target) or _convert(gguf, target, permutation_seed)


def _complete(target: Path) -> Converted | None:
    try:
        record = json.loads((target / RECORD).read_text("utf-8"))
        if any((target / name).stat().st_size != size for name, size in record["files"].items()):
            return None
        return Converted(target, record["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _convert(gguf: Path, target: Path, permutation_seed: str | None) -> Converted:
    from export.sources.gguf_checkpoint import write_checkpoint

    with exclusive(target):
        made = _complete(target)
        if made is None:
            with atomic_folder(target) as folder:
                name = write_checkpoint(gguf, folder, permutation_seed)
                _write_record(folder, name)
            made = Converted(target, name)
    return made


def _write_record(folder: Path, name: str | None) -> None:
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    record: dict[str, Any] = {"name": name, "files": files}
    write_atomic(folder / RECORD, json.dumps(record, indent=2).encode())
