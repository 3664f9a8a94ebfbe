"""Where results lie: under names, in a folder or behind a URL, each whole or not at all.

What is created is never changed, so that nobody needs a lock: of two who create the same name one
is first, and the other is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgeproof.errors import InputError


class Store(Protocol):
    """Bytes by POSIX names. Errors of the system are `InputError`s that name the place."""

    url: str
    """What opens it again, on any machine that reaches it."""

    def read(self, name: str) -> bytes | None:
        """What is there; None for nothing."""

    def has(self, name: str) -> bool:
        """Whether anything is there."""

    def create(self, name: str, data: bytes) -> bool:
        """Put bytes where nothing is, in one step; whether it was so."""

    def replace(self, name: str, data: bytes) -> None:
        """Put bytes in the place of what is there, in one step."""

    def put(self, name: str, path: Path, *, take: bool) -> None:
        """Put a file, in one step; where it may `take` it, nobody changes the file afterwards."""

    def get(self, name: str, path: Path) -> None:
        """Make a file at `path`.

        Raises:
            FileNotFoundError: nothing is there.
        """

    def remove(self, name: str) -> None:
        """Throw away what is there, if anything is."""

    def names(self, folder: str) -> list[str]:
        """The names of what lies in a folder, sorted."""


def open_store(place: str) -> Store:
    """The store in a folder, or behind a URL that fsspec knows (`s3://bucket/folder`).

    Raises:
        InputError: there can be none.
    """
    if not place or not place.isprintable():
        raise InputError(f"--store {place!r}: neither a folder nor a URL")
    scheme, separator, rest = place.partition("://")
    if not separator or scheme == "file":
        from edgeproof.steps.folder import FolderStore

        return FolderStore(Path(rest if separator else place).absolute())
    from edgeproof.steps.urls import UrlStore

    return UrlStore(place)
