"""What code of ours and of plugins is here: a version has several on a developer's machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from edgeproof.errors import InputError

CORE = "edgeproof"
# What packages have beside what Python makes and editors leave; browsers run some of it.
SUFFIXES = frozenset(
    (".py", ".js", ".html", ".c", ".css", ".j2", ".json", ".jsonl", ".toml", ".txt", ".in")
)
SHOWN = 12  # digits of a digest, for people


def code_behind(module: str) -> dict[str, str]:
    """Package → `code_digest`, of the code that a module runs.

    That is the core's, its own package's, and what other packages bring by entry points of ours.
    """
    names = {CORE, module.partition(".")[0], *_brought()}
    found = {name: code_digest(name) for name in sorted(names)}
    return {name: digest for name, digest in found.items() if digest is not None}


def code_digest(package: str, *inner: str) -> str | None:
    """Hex SHA-256 of a package's files as they are now; None where it is not installed.

    Of its `inner` files and folders alone, where some are named (POSIX). It depends on no line
    endings and on no place. Nothing is imported.
    """
    places = _places(package)
    if not places:
        return None
    digest = hashlib.sha256()
    for place in places:
        for name, path in sorted(_files(place, inner)):
            data = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{name}\n{len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()


def require_code(wanted: Mapping[str, str], who: str) -> None:
    """Refuse to go on where other code is than was wanted, also where somebody is editing it.

    Raises:
        InputError: naming `who` has it, and the first package.
    """
    for name, digest in wanted.items():
        found = code_digest(name)
        if found != digest:
            have = f"other code of {name} ({found[:SHOWN]})" if found else f"no {name}"
            raise InputError(
                f"{who} has {have}, the run was begun with {digest[:SHOWN]}; install the same"
                " there, or run again where it was edited"
            )


def _places(package: str) -> list[Path]:
    """Its folders, or the file of a module that is no package."""
    try:
        spec = find_spec(package)
    except ValueError:  # of a program that is none
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []


def _files(place: Path, inner: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Code below a place, by its names there."""
    if place.is_file():
        yield place.name, place
        return
    for start in [place / name for name in inner] or [place]:
        for path in (start,) if start.is_file() else start.rglob("*"):
            name = path.relative_to(place)
            hidden = any(part.startswith(".") for part in name.parts)
            if path.suffix in SUFFIXES and not hidden and path.is_file():
                yield name.as_posix(), path


def _brought() -> set[str]:
    points = entry_points()
    groups = [group for group in points.groups if group.startswith(f"{CORE}.")]
    return {
        point.module.partition(".")[0] for group in groups for point in points.select(group=group)
    }
