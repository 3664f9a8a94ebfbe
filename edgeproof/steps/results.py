"""Results in a store: which files a step has made, found by its key and by what is in them.

A result is there when its record is, and that is written last. What is damaged is thrown away as
soon as it is seen, so that it is made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from edgeproof import __version__
from edgeproof.errors import InputError
from edgeproof.files.hashing import SHA256, OutputFile, file_sha256
from edgeproof.files.own import DamagedFileError, parse_own, typed
from edgeproof.files.schema import Schema
from edgeproof.steps.step import Kind
from edgeproof.steps.store import Store

SCHEMA = Schema(current=1, oldest=1, again="remove it and run again", what="a step's result")


class LostResultError(InputError):
    """What a store should have is not there, or was damaged and thrown away."""


@dataclass(frozen=True)
class Result:
    """What a step of some kind has made, by whom, on what kind of machine, in how many seconds."""

    kind: Kind
    step: str
    files: tuple[OutputFile, ...]
    where: str
    seconds: float
    machine: str = ""


def find(store: Store, key: str) -> Result | None:
    """The result of a step; None where it is not there, or one of its files is missing.

    A damaged record is thrown away.

    Raises:
        InputError: a path in its record leaves its folder, or the store does not answer.
    """
    name = _record(key)
    data = store.read(name)
    if data is None:
        return None
    try:
        result = parse_own(data, f"{store.url}/{name}", SCHEMA, lambda raw: typed(Result, raw))
    except DamagedFileError:
        store.remove(name)
        return None
    _require_inside(store, result)
    return result if all(store.has(_file(item.sha256)) for item in result.files) else None


def keep(store: Store, key: str, result: Result, folder: Path, *, take: bool) -> Result:
    """Put the result's files, which lie in a folder, and then its record.

    Where somebody else was first, theirs is returned. What may be taken is not changed afterwards.
    """
    for item in result.files:
        if not store.has(_file(item.sha256)):
            store.put(_file(item.sha256), folder / item.path, take=take)
    told = {"schema": SCHEMA.current, "edgeproof": __version__, **asdict(result)}
    data = (json.dumps(told, indent=1) + "\n").encode()
    if store.create(_record(key), data):
        return result
    first = find(store, key)
    if first is None:  # its files are gone
        store.replace(_record(key), data)
    return first or result


def fetch(store: Store, result: Result, folder: Path) -> None:
    """Put a result's files into a folder.

    One that is not what its name says, also when it is fetched again, is thrown away.

    Raises:
        LostResultError: a file was missing or damaged: the result is there no more.
        InputError: a path leaves the folder, or the store does not answer.
    """
    _require_inside(store, result)
    for item in result.files:
        target, name = folder / item.path, _file(item.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not any(_got(store, item, target) for _ in range(2)):
                store.remove(name)
                raise LostResultError(f"{store.url}/{name}: damaged, and thrown away")
        except FileNotFoundError:
            raise LostResultError(f"{store.url}/{name}: missing") from None


def _got(store: Store, item: OutputFile, target: Path) -> bool:
    """Fetch a file; whether it is what its name says."""
    target.unlink(missing_ok=True)
    store.get(_file(item.sha256), target)
    return target.stat().st_size == item.bytes and file_sha256(target) == item.sha256


def _require_inside(store: Store, result: Result) -> None:
    """Refuse names that somebody else may have put into a store.

    Raises:
        InputError: a path leaves its folder, or a digest is none.
    """
    for item in result.files:
        path = PurePosixPath(item.path)
        if path.is_absolute() or ".." in path.parts or "\\" in item.path:
            raise InputError(
                f"{store.url}: {result.step}: the path {item.path!r} leaves its folder"
            )
        if not SHA256.fullmatch(item.sha256):
            raise InputError(f"{store.url}: {result.step}: {item.path} has no SHA-256")


def files_of(folder: Path) -> tuple[OutputFile, ...]:
    """All files below a folder, with their hashes, in order of their paths."""
    return records(folder, sorted(path for path in folder.rglob("*") if path.is_file()))


def records(folder: Path, paths: Sequence[Path]) -> tuple[OutputFile, ...]:
    """Files below a folder with their hashes."""
    return tuple(
        OutputFile(path.relative_to(folder).as_posix(), path.stat().st_size, file_sha256(path))
        for path in paths
    )


def note_attempt(store: Store, key: str, number: str, where: str) -> None:
    """Note who begins a step: how often each was begun can be counted."""
    store.create(f"{_attempts(key)}/{number}", where.encode())


def attempts(store: Store, key: str) -> list[str]:
    """Who has begun a step, once for each time."""
    names = [f"{_attempts(key)}/{number}" for number in store.names(_attempts(key))]
    return [(store.read(name) or b"").decode("utf-8", "replace") for name in names]


def _record(key: str) -> str:
    return f"results/{key[:2]}/{key}.json"


def _attempts(key: str) -> str:
    return f"attempts/{key}"


def _file(sha256: str) -> str:
    return f"files/{sha256[:2]}/{sha256}"
