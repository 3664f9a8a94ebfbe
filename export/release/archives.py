"""Archives for GitHub Releases: a zip per variant, reproducible, in parts that GitHub accepts.

Weights hardly compress, so members are stored: the bytes follow from the files alone, not from a
compressor's version. Parts are cut anywhere: `cat NAME.zip.* > NAME.zip` joins them.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgeproof.artifact import HashedFile
from edgeproof.files.hashing import OutputFile

# GitHub refuses an asset of 2 GiB or more.
PART_BYTES = 2_000_000_000
# The first moment that zip can express: nothing depends on the clock.
EPOCH = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644 << 16
UNIX = 3
CHUNK = 4 << 20


class PartWriter:
    """A write-only stream that goes on in the next file where one is full."""

    def __init__(self, folder: Path, name: str, part_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._part_bytes = part_bytes
        self._file: HashedFile | None = None
        self._parts: list[OutputFile] = []

    def write(self, data: bytes | memoryview, /) -> int:
        """Append; returns how much was written, which is all."""
        view = memoryview(data).cast("B")
        rest = view
        while len(rest):
            file = self._file or self._open()
            room = self._part_bytes - file.position
            file.write(rest[:room])
            rest = rest[room:]
            if file.position == self._part_bytes:
                self._finish_part()
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered."""

    def finish(self) -> tuple[OutputFile, ...]:
        """The parts; a single one has no number."""
        self._finish_part()
        if len(self._parts) == 1:
            (part,) = self._parts
            (self._folder / part.path).rename(self._folder / self._name)
            return (OutputFile(self._name, part.bytes, part.sha256),)
        return tuple(self._parts)

    def close(self) -> None:
        """Close without a record, if `finish` has not."""
        if self._file is not None:
            self._file.abandon()

    def _open(self) -> HashedFile:
        name = f"{self._name}.{len(self._parts) + 1:03}"
        self._file = HashedFile(self._folder / name, name)
        return self._file

    def _finish_part(self) -> None:
        if self._file is not None:
            self._parts.append(self._file.finish())
            self._file = None


def write_archive(
    folder: Path, name: str, members: Mapping[str, Path], part_bytes: int = PART_BYTES
) -> tuple[OutputFile, ...]:
    """Write `name`.zip into `folder`; members are path → file. Returns its parts."""
    writer = PartWriter(folder, f"{name}.zip", part_bytes)
    try:
        # It cannot seek, so zipfile writes each member in one pass, its checksum after it.
        with zipfile.ZipFile(writer, "w", zipfile.ZIP_STORED) as archive:
            for path, source in sorted(members.items()):
                info = zipfile.ZipInfo(path, EPOCH)
                info.create_system, info.external_attr = UNIX, MODE
                info.file_size = source.stat().st_size
                with source.open("rb") as file, archive.open(info, "w") as member:
                    shutil.copyfileobj(file, member, CHUNK)
        return writer.finish()
    finally:
        writer.close()
