"""The receipt of an audit: a folder with its report, and which files that is about."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.errors import InputError
from edgeproof.files.atomic import atomic_folder, write_atomic
from edgeproof.files.hashing import OutputFile, file_sha256
from edgeproof.files.space import require_folder
from edgeproof.verdicts import (
    RECEIPT,
    REPORT,
    SIGNATURE_FILES,
    Audited,
    DamagedEntry,
    HubCommit,
    Receipt,
    receipt_bytes,
)

if TYPE_CHECKING:
    from runtimes.audit.inspection import Origin
    from runtimes.audit.run import Audit


PARTS = (RECEIPT, REPORT, *SIGNATURE_FILES)


def require_receipt(folder: Path | None, others: Iterable[Path] = ()) -> None:
    """Refuse a folder that has something else in it, or cannot be written.

    It is replaced as a whole, so that none of the `others` that are written may lie in it.

    Raises:
        InputError: naming it.
    """
    if folder is None:
        return
    require_folder(folder)
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if held and (RECEIPT not in held or not held.issubset(PARTS)):
        raise InputError(f"{folder}: holds something else than a receipt; name another folder")
    for path in others:
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{path}: lies in the receipt, which has no such file; name another")


def write_receipt(folder: Path, done: Audit, day: str) -> None:
    """Write it, in place of the one that is there; `edgeproof release sign` signs it."""
    from runtimes.parity.report.json import write_json

    with atomic_folder(folder) as temporary:
        write_json(temporary / REPORT, done.result)
        digest = file_sha256(temporary / REPORT)
        audited, damaged = tuple(_audited(done)), tuple(_damaged(done))
        receipt = Receipt(day, done.result.label, digest, audited, damaged)
        write_atomic(temporary / RECEIPT, receipt_bytes(receipt))


def _audited(done: Audit) -> Iterator[Audited]:
    inspected = {item.name: item for item in done.inspected}
    for item in done.ranking:
        entry, manifest = item.entry, item.entry.artifact.manifest
        name = manifest.variant.name
        yield Audited(
            manifest.variant.format,
            name,
            entry.judgement.verdict,
            manifest.outputs,
            _commit(inspected[name].origin),
        )


def _damaged(done: Audit) -> Iterator[DamagedEntry]:
    for item in done.damaged:
        paths = [(name, item.folder / name) for name in sorted(item.files)]
        found: list[OutputFile] = []
        for name, path in paths:
            with contextlib.suppress(InputError, OSError):  # it may be what is wrong with it
                found.append(OutputFile(name, path.stat().st_size, file_sha256(path)))
        yield DamagedEntry(item.told.folder, item.told.reason, tuple(found), _commit(item.origin))


def _commit(origin: Origin | None) -> HubCommit | None:
    return HubCommit(origin.repo, origin.commit) if origin else None
