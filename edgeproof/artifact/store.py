"""Write, open and reuse artifact folders.

Invariant: a folder at an artifact's path is complete: it is renamed into place with its manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeproof.artifact.manifest import (
    MANIFEST,
    Manifest,
    ModelIdentity,
    VariantRecord,
    WeightStats,
    recipe_digest,
    weights_record,
)
from edgeproof.artifact.variant import Variant
from edgeproof.errors import DamagedExportError, InputError
from edgeproof.files.atomic import atomic_folder
from edgeproof.files.hashing import OutputFile, file_sha256
from edgeproof.files.own import DamagedFileError, own_bytes
from edgeproof.files.schema import NewerFileError


@dataclass(frozen=True)
class Vocabulary:
    """How many tokens a file has `own`, and its `original`, whose number is another.

    The first ones are `common`. What of the original is missing are rows that have no token.
    """

    own: int
    original: int

    @property
    def common(self) -> int:
        """How many both have."""
        return min(self.own, self.original)


@dataclass(frozen=True)
class Foreign:
    """Of files that no manifest describes: what the user named, a file or a folder.

    With a `suffix`, all are found by it, the one that readers ask for, whatever they are called.
    With a `vocabulary` they are compared on the common tokens only. Without `batches` their loader
    pads texts in another way than on the left.
    """

    subject: Path
    suffix: str
    vocabulary: Vocabulary | None = None
    batches: bool = True


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk: its folder, its manifest, and the hex SHA-256 of the manifest's file.

    One that others made is `foreign`: its manifest is what was found of its bytes.
    """

    path: Path
    manifest: Manifest
    sha256: str
    foreign: Foreign | None = None

    @property
    def subject(self) -> Path:
        """What people name it by: its folder, or a file in one."""
        return self.path if self.foreign is None else self.foreign.subject

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What of another vocabulary than the original's is compared; None of the same one."""
        return None if self.foreign is None else self.foreign.vocabulary

    def file(self, suffix: str) -> Path:
        """The only output whose path ends so.

        Raises:
            InputError: none or several.
        """
        matches = self.files(suffix)
        if len(matches) != 1:
            raise InputError(f"{self.path}: expected one file *{suffix}, found {len(matches)}")
        return matches[0]

    def files(self, suffix: str) -> list[Path]:
        """All outputs whose paths end so, sorted: a file in splits begins with its first.

        Raises:
            InputError: none.
        """
        by_any_name = self.foreign is not None and self.foreign.suffix == suffix != ""
        names = sorted(
            item.path for item in self.manifest.outputs if by_any_name or item.path.endswith(suffix)
        )
        if not names:
            raise InputError(f"{self.path}: expected a file *{suffix}, found none")
        return [self.path / name for name in names]

    def check(self) -> None:
        """Compare every file with the manifest's size and SHA-256.

        Raises:
            InputError: naming the first file that differs.
        """
        for item in self.manifest.outputs:
            path = self.path / item.path
            if not path.is_file() or path.stat().st_size != item.bytes:
                raise DamagedExportError(f"{path}: missing or of the wrong size")
            if file_sha256(path) != item.sha256:
                raise DamagedExportError(f"{path}: its SHA-256 is not the manifest's")


class HashedFile:
    """A binary file that hashes what is written; `write` takes any C-contiguous buffer.

    With `hash_sections`, `sections` gets the SHA-256 of what is written inside each `section`.
    """

    def __init__(self, path: Path, name: str, *, hash_sections: bool = False) -> None:
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._name = name
        self._hash_sections = hash_sections
        self._section: hashlib._Hash | None = None
        self.sections: dict[str, str] = {}
        self.position = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all bytes."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        if self._section is not None:
            self._section.update(view)
        written = 0
        while written < len(view):
            written += self._file.write(view[written:])
        self.position += len(view)

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Mark what the block writes as one named part of the file, for a check to find it."""
        self._section = hashlib.sha256() if self._hash_sections else None
        yield
        if self._section is not None:
            self.sections[name] = self._section.hexdigest()
        self._section = None

    def pad(self, alignment: int) -> None:
        """Append zeros up to a multiple of `alignment` bytes."""
        self.write(bytes(-self.position % alignment))

    def finish(self, *, durable: bool = True) -> OutputFile:
        """Make the bytes durable and return their record."""
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()
        return OutputFile(self._name, self.position, self._digest.hexdigest())

    def abandon(self) -> None:
        """Close without a record."""
        self._file.close()


class ArtifactWriter:
    """Collects an artifact's files in a temporary folder. Use `ArtifactWriter.create`.

    `dry` tells an exporter that the bytes are thrown away: only their number matters.
    """

    dry = False

    def __init__(self, folder: Path, *, hash_sections: bool = False) -> None:
        self._folder = folder
        self._hash_sections = hash_sections
        self._outputs: list[OutputFile] = []
        self._sections: dict[str, dict[str, str]] = {}
        self.stats = WeightStats()

    @staticmethod
    @contextlib.contextmanager
    def create(
        target: Path,
        model: ModelIdentity,
        variant: Variant[Any],
        tools: dict[str, str],
        *,
        hash_sections: bool = False,
    ) -> Iterator[ArtifactWriter]:
        """Write an artifact; it appears at `target`, manifest included, when the block succeeds.

        `hash_sections` is for `sections`.
        """
        with atomic_folder(target) as folder:
            writer = ArtifactWriter(folder, hash_sections=hash_sections)
            yield writer
            manifest = Manifest(
                model=model,
                variant=VariantRecord.of(variant),
                recipe_digest=recipe_digest(model, VariantRecord.of(variant), tools),
                tools=tools,
                outputs=tuple(sorted(writer._outputs, key=lambda item: item.path)),
                weights=weights_record(writer.stats, model.parameters),
            )
            writer.write(MANIFEST, manifest.to_json().encode())

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[HashedFile]:
        """Stream one output file; `name` is a POSIX path relative to the artifact."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file = HashedFile(path, name, hash_sections=self._hash_sections)
        try:
            yield file
            self._outputs.append(file.finish())
            self._sections[name] = file.sections
        finally:
            file.abandon()

    def write(self, name: str, data: bytes) -> None:
        """Write one small output file."""
        with self.open(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for intermediate files on the artifact's disk; it goes away with the block."""
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=self._folder) as folder:
            yield Path(folder)

    @property
    def sections(self) -> dict[Path, dict[str, str]]:
        """The files with sections, each with the hex SHA-256 of these, for a check to find them."""
        return {self._folder / name: found for name, found in self._sections.items() if found}


class DryRunWriter(ArtifactWriter):
    """Accepts everything, keeps sizes and statistics, writes nothing."""

    dry = True

    def __init__(self) -> None:
        super().__init__(Path(tempfile.gettempdir()))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[HashedFile]:
        """A stream into the null device."""
        file = HashedFile(Path(os.devnull), name)
        try:
            yield file
            self._outputs.append(file.finish(durable=False))
        finally:
            file.abandon()

    @property
    def bytes(self) -> int:
        """Total size of the files that would be written, the manifest excepted."""
        return sum(item.bytes for item in self._outputs)


def open_artifact(path: Path) -> Artifact:
    """Read an artifact's manifest; sizes and hashes are checked by `Artifact.check`.

    Raises:
        DamagedFileError: the manifest is none, or has a path that leaves the folder.
        UnreadableFileError: the system does not give it.
        InputError: there is none, or a newer edgeproof wrote it.
    """
    try:
        data = None if path.is_file() else own_bytes(path / MANIFEST)
    except FileNotFoundError:
        data = None
    if data is None:
        raise InputError(f"{path}: no {MANIFEST}, so this is not a finished artifact")
    manifest = Manifest.from_json(data, str(path / MANIFEST))
    for item in manifest.outputs:
        parts = PurePosixPath(item.path)
        if parts.is_absolute() or ".." in parts.parts or "\\" in item.path:
            raise DamagedFileError(
                f"{path / MANIFEST}: damaged, the path {item.path!r} leaves the folder"
            )
    return Artifact(path, manifest, hashlib.sha256(data).hexdigest())


def reusable(
    target: Path, model: ModelIdentity, variant: Variant[Any], tools: dict[str, str]
) -> Artifact | None:
    """The artifact at `target` if it was made by this recipe and its bytes are intact.

    Raises:
        NewerFileError: a newer edgeproof wrote the one that is there.
    """
    try:
        artifact = open_artifact(target)
        manifest = artifact.manifest
        said = recipe_digest(manifest.model, manifest.variant, manifest.tools)
        expected = recipe_digest(model, VariantRecord.of(variant), tools)
        if not manifest.recipe_digest == said == expected:
            return None
        artifact.check()
    except NewerFileError:
        raise
    except InputError:
        return None
    return artifact
