"""A store in a folder, of one machine or shared by several.

Files are written under a name of their own and then linked to theirs: of two who do, one is told
that the name is taken, on NFS too, where locks are not to be relied on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.atomic import TEMPORARY, storage_errors, sync_folder, write_atomic
from edgeproof.files.copying import copy_file, link_file
from edgeproof.files.space import require_folder


class FolderStore:
    """One below `root`."""

    def __init__(self, root: Path) -> None:
        """Make it where it is not there yet.

        Raises:
            InputError: it cannot be.
        """
        require_folder(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{root}: no store can be made there ({error.strerror})") from None
        self._root = root
        self.url = str(root)

    def read(self, name: str) -> bytes | None:
        """What is there; None for nothing."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Whether anything is there."""
        return (self._root / name).exists()

    def create(self, name: str, data: bytes) -> bool:
        """Put bytes where nothing is, in one step; whether it was so."""
        target = self._root / name
        with _beside(target) as temporary:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            first = _linked(temporary, target)
        sync_folder(target.parent)
        return first

    def replace(self, name: str, data: bytes) -> None:
        """Put bytes in the place of what is there, in one step."""
        write_atomic(self._root / name, data)

    def put(self, name: str, path: Path, *, take: bool) -> None:
        """Put a file, in one step."""
        target = self._root / name
        with _beside(target) as temporary:
            (link_file if take else copy_file)(path, temporary)
            temporary.replace(target)
        sync_folder(target.parent)

    def get(self, name: str, path: Path) -> None:
        """Make a file at `path`: no link, which onnx takes for an attack."""
        with storage_errors(path):
            copy_file(self._root / name, path)

    def remove(self, name: str) -> None:
        """Throw away what is there, if anything is."""
        place = self._root / name
        with storage_errors(place):
            place.unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """The names of what lies in a folder, sorted."""
        place = self._root / folder
        found = place.iterdir() if place.is_dir() else ()
        return sorted(item.name for item in found if not item.name.startswith(TEMPORARY))


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name in the target's folder that is nobody else's; it goes with the block."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _linked(temporary: Path, target: Path) -> bool:
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        # A server that has done it, and whose answer was lost, is asked again.
        return temporary.stat().st_nlink == 2
    except OSError:  # a file system without links: the last one of two counts
        if target.exists():
            return False
        temporary.replace(target)
    return True
