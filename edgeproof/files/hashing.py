"""SHA-256 of files, remembered by (path, size, mtime, inode) so that big inputs are hashed once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic

CHUNK_BYTES = 4 << 20


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


def input_records(paths: Sequence[Path], cache: Path) -> tuple[OutputFile, ...]:
    """Name, size and SHA-256 of input files; `cache` is the folder of remembered digests."""
    return tuple(
        OutputFile(path.name, path.stat().st_size, remembered_sha256(path, cache)) for path in paths
    )


def remembered_sha256(path: Path, cache: Path) -> str:
    """Hex SHA-256 of a file; not read again while its path, size, mtime and inode are the same.

    Raises:
        InputError: the file cannot be read, or `cache` cannot be written.
    """
    real = path.resolve()
    state = real.stat()
    key = [str(real), state.st_size, state.st_mtime_ns, state.st_ino]
    record = cache / f"{hashlib.sha256(os.fsencode(real)).hexdigest()}.json"
    try:
        stored = json.loads(record.read_text("utf-8"))
        if stored["key"] == key:
            return str(stored["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = file_sha256(real)
    write_atomic(record, json.dumps({"key": key, "sha256": digest}).encode())
    return digest
