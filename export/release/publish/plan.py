"""What there is to publish, and what a destination makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeproof.display import megabytes
from edgeproof.files.hashing import file_sha256
from export.release.dist import SUMS
from export.release.record import Record, read_record
from export.release.signature import UNSIGNED
from export.release.verify import read_sums

Say = Callable[[str], None]


@dataclass(frozen=True)
class Upload:
    """One file: its path at the destination, where it lies here, what it must be."""

    path: str
    source: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class VerifiedRelease:
    """A verified release: its folder's name and every file of it, SHA256SUMS last.

    `public`: a destination that knows who may see something shows it to everybody at the end.
    `replace`: what everybody sees already may be changed where that cannot be done in one step.
    """

    name: str
    folder: Path
    record: Record
    files: tuple[Upload, ...]
    public: bool = False
    replace: bool = False

    def below(self, folder: str) -> tuple[Upload, ...]:
        """The files of one of its folders, relative to that."""
        prefix = f"{folder}/"
        return tuple(
            Upload(item.path.removeprefix(prefix), item.source, item.bytes, item.sha256)
            for item in self.files
            if item.path.startswith(prefix)
        )


@dataclass(frozen=True)
class PublishPlan:
    """What will happen at one place; `place` names it for people."""

    place: str
    upload: tuple[Upload, ...]
    keep: tuple[Upload, ...]
    remove: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether the place has everything already."""
        return not (self.upload or self.remove)

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        size = megabytes(sum(item.bytes for item in self.upload))
        yield (
            f"{self.place}: {len(self.upload)} to upload ({size} MB), {len(self.keep)} unchanged,"
            f" {len(self.remove)} to remove"
        )
        for item in self.upload:
            yield f"  upload {item.path} ({megabytes(item.bytes)} MB)"
        for path in self.remove:
            yield f"  remove {path}"


class Destination(Protocol):
    """Somewhere to publish to. Errors of the network become `InputError` after retries."""

    def plans(self) -> list[PublishPlan]:
        """What there is to do, by looking at what is there; changes nothing."""

    def carry_out(self, plan: PublishPlan, say: Say) -> None:
        """Do it; `say` is told of each file that has arrived.

        Raises:
            InputError: it would change what everybody sees, and the publication does not allow it.
        """


def load_release(folder: Path, *, public: bool = False, replace: bool = False) -> VerifiedRelease:
    """List a release that `verify` found to be right."""
    sums, _ = read_sums(folder / SUMS)
    digests = dict(sums)
    for name in (*UNSIGNED, SUMS):
        if (folder / name).is_file():
            digests[name] = file_sha256(folder / name)
    files = tuple(
        Upload(path, folder / path, (folder / path).stat().st_size, digest)
        for path, digest in digests.items()
    )
    return VerifiedRelease(
        folder.resolve().name, folder, read_record(folder), files, public, replace
    )


def compare(place: str, files: tuple[Upload, ...], there: dict[str, str | None]) -> PublishPlan:
    """A plan from what is there, path → hex digest, None where it is not known."""
    keep = tuple(item for item in files if there.get(item.path) == item.sha256)
    upload = tuple(item for item in files if there.get(item.path) != item.sha256)
    return PublishPlan(
        place, upload, keep, tuple(sorted(there.keys() - {item.path for item in files}))
    )
