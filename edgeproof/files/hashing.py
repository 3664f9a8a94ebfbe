"""SHA-256 of files, remembered by (path, size, mtime, inode) so that big inputs are hashed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.errors import InputError
from edgeproof.files.cache import keep
from edgeproof.files.own import WrongJsonError, json_object, typed

CHUNK_BYTES = 4 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class OutputFile:
    """One file: POSIX path relative to its folder, size in bytes, hex SHA-256."""

    path: str
    bytes: int
    sha256: str


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(view[:count])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def input_records(
    paths: Sequence[Path], cache: Path, root: Path | None = None
) -> tuple[OutputFile, ...]:
    """Path below `root`, size and SHA-256 of input files; without a root their names.

    `cache` is the folder of remembered digests.
    """
    return tuple(
        OutputFile(
            path.name if root is None else path.relative_to(root).as_posix(),
            path.stat().st_size,
            remembered_sha256(path, cache),
        )
        for path in paths
    )


def remembered_sha256(path: Path, cache: Path) -> str:
    """Hex SHA-256 of a file; not read again while its path, size, mtime and inode are the same.

    Raises:
        InputError: the file cannot be read.
    """
    real = Path(os.path.realpath(path))  # whatever its links do
    state = real.stat()
    facts = (state.st_size, state.st_mtime_ns, state.st_ino)
    record = cache / f"{hashlib.sha256(os.fsencode(real)).hexdigest()}.json"
    with contextlib.suppress(OSError, WrongJsonError):
        stored = typed(_Remembered, json_object(record.read_bytes()))
        if stored.key == (str(real), *facts) and SHA256.fullmatch(stored.sha256):
            return stored.sha256
    digest = file_sha256(real)
    keep(record, json.dumps({"key": [str(real), *facts], "sha256": digest}).encode())
    return digest


@dataclass(frozen=True)
class _Remembered:
    """Path, size, mtime in nanoseconds and inode of a file, and what its bytes hash to."""

    key: tuple[Any, ...]
    sha256: str
