"""Where an adapter is: a folder of PEFT, here or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproof.checkpoints.origin import HUB_ID
from edgeproof.checkpoints.weight_files import ADAPTER, INDEX, SINGLE
from edgeproof.errors import InputError
from export.sources.local import resolve_local
from export.sources.on_disk import on_disk


@dataclass(frozen=True)
class Place:
    """An adapter's folder; `label` names artifact folders, the others go into files."""

    folder: Path
    label: str
    name: str | None = None
    repo: str | None = None
    revision: str | None = None


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    weights = (folder / SINGLE, folder / INDEX)
    return (folder / ADAPTER).is_file() and not any(path.exists() for path in weights)


def find_adapter(identifier: str) -> Place:
    """The adapter that a user names, downloaded where it is on the hub.

    Raises:
        InputError: nothing is there, or no adapter.
    """
    if on_disk(identifier):
        folder = Path(identifier).expanduser()
        if not folder.is_dir():
            raise InputError(f"{folder}: expected an adapter's folder; name its folder?")
        return Place(folder, resolve_local(folder).label)
    if not HUB_ID.fullmatch(identifier):
        raise InputError(f"--adapter {identifier!r}: no such folder, and not a hub id (org/name)")
    from export.sources.hub import download_adapter

    found = download_adapter(identifier)
    return Place(found.path, found.label, found.name, found.repo, found.revision)
