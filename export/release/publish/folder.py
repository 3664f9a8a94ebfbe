"""`dir:/path`: the release as the folder /path/<release>, which appears by one rename.

Files are collected in a hidden folder beside it, each under its name only when it is complete.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.atomic import replace_folder, storage_errors, sync_folder
from edgeproof.files.hashing import file_sha256
from edgeproof.files.lock import exclusive
from edgeproof.files.space import require_space
from export.release.publish.plan import PublishPlan, Say, VerifiedRelease, compare

STAGING = ".edgeproof-publish-"
PART = ".edgeproof-part"


class Folder:
    """A destination on this machine."""

    def __init__(self, publication: VerifiedRelease, address: str) -> None:
        self._files = publication.files
        self._target = Path(address) / publication.name
        self._staging = self._target.with_name(STAGING + publication.name)

    def plans(self) -> list[PublishPlan]:
        """Compare by content."""
        return [compare(str(self._target), self._files, dict(_digests(self._target)))]

    def carry_out(self, plan: PublishPlan, say: Say) -> None:
        """Collect, read back, rename."""
        with exclusive(self._target), storage_errors(self._target):
            if not plan.nothing:
                require_space(self._target, sum(item.bytes for item in plan.upload))
                self._collect(plan, say)
                replace_folder(self._staging, self._target)
                sync_folder(self._target.parent)
            shutil.rmtree(self._staging, ignore_errors=True)  # now it has what was there before

    def _collect(self, plan: PublishPlan, say: Say) -> None:
        there = _digests(self._staging)
        for item in (*plan.upload, *plan.keep):
            staged = self._staging / item.path
            if there.pop(item.path, None) == item.sha256:
                continue
            staged.parent.mkdir(parents=True, exist_ok=True)
            source = self._target / item.path if item in plan.keep else item.source
            _copy(source, staged)
            say(f"uploaded: {item.path}")
        for path in there:
            (self._staging / path).unlink(missing_ok=True)  # a part, now whole
        arrived = _digests(self._staging)
        for item in self._files:
            if arrived.get(item.path) != item.sha256:
                raise InputError(f"{self._staging / item.path}: damaged on its way; run again")
        for folder, _, _ in os.walk(self._staging):
            sync_folder(Path(folder))


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(target.name + PART)
    with source.open("rb") as reader, part.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 4 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    part.replace(target)


def _digests(folder: Path) -> dict[str, str | None]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
