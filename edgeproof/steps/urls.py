"""A store behind a URL of fsspec's: S3, GCS and others, each through its own package.

An object appears whole or not at all. That a name is taken is told by the service itself where its
file system in fsspec asks for it (`mode="create"`: S3's and GCS's do); elsewhere the last one of
two counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.extras import not_installed


class UrlStore:
    """One below a URL, such as `s3://bucket/folder`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ModuleNotFoundError:
            raise not_installed("fsspec", "dask") from None
        try:
            # What a listing once said would hide what others put there.
            self._fs, self._root = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise InputError(f"--store {url}: {error}") from None
        except ValueError as error:
            raise InputError(f"--store {url}: no URL that fsspec knows ({error})") from None

    def read(self, name: str) -> bytes | None:
        """What is there; None for nothing."""
        with self._errors(name):
            try:
                data: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return data

    def has(self, name: str) -> bool:
        """Whether anything is there."""
        with self._errors(name):
            return bool(self._fs.exists(self._path(name)))

    def create(self, name: str, data: bytes) -> bool:
        """Put bytes where nothing is, in one step; whether it was so."""
        with self._errors(name):
            try:
                self._fs.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
            return True

    def replace(self, name: str, data: bytes) -> None:
        """Put bytes in the place of what is there, in one step."""
        with self._errors(name):
            self._fs.pipe_file(self._path(name), data)

    def put(self, name: str, path: Path, *, take: bool) -> None:
        """Put a file, in one step."""
        with self._errors(name):
            self._fs.put_file(str(path), self._path(name))

    def get(self, name: str, path: Path) -> None:
        """Make a file at `path`."""
        with self._errors(name):
            self._fs.get_file(self._path(name), str(path))

    def remove(self, name: str) -> None:
        """Throw away what is there, if anything is."""
        with self._errors(name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def names(self, folder: str) -> list[str]:
        """The names of what lies in a folder, sorted."""
        with self._errors(folder):
            try:
                found: list[str] = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """What a service refuses, in a line that names the place."""
        try:
            yield
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:  # each service has errors of its own
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"{self.url}/{name}: {reason}") from error
