"""`receipt.json`: which files an audit has compared, when, and how they came out.

It lies in a folder with the audit's `parity.json`, whose hash it has. The release's key signs both
(`edgeproof release sign`), and `edgeproof release verify` checks them, and files that are given.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeproof import __version__
from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema
from edgeproof.verdicts.verdict import Verdict

RECEIPT = "receipt.json"
# What signs it lies beside it, as beside a release.
SIGNATURE_FILES = ("model.sig", "model.sig.sha256")
# Before 2 it does not say which files could not be opened.
SCHEMA = Schema(current=2, oldest=1, again="audit again", what="a receipt of an audit")


@dataclass(frozen=True)
class HubCommit:
    """A repository of the hub and the commit that was fetched."""

    repo: str
    commit: str


@dataclass(frozen=True)
class Audited:
    """A model of some files, by the names that reports give it; `hub` is where it was fetched."""

    format: str
    name: str
    verdict: Verdict
    files: tuple[OutputFile, ...]
    hub: HubCommit | None


@dataclass(frozen=True)
class DamagedEntry:
    """What nothing could open, by the name that reports give it, why, and its files, if any."""

    name: str
    reason: str
    files: tuple[OutputFile, ...]
    hub: HubCommit | None


@dataclass(frozen=True)
class Receipt:
    """`report` is the SHA-256 of parity.json; `day` is in UTC, as 2026-11-29.

    `damaged` files were not compared, which is a FAIL; None in receipts that do not name them.
    """

    day: str
    against: str
    report: str
    audited: tuple[Audited, ...]
    damaged: tuple[DamagedEntry, ...] | None = None


def receipt_bytes(receipt: Receipt) -> bytes:
    """The only way in which it is written, so that a change of any byte shows."""
    data = {"schema": SCHEMA.current, "edgeproof": __version__, **asdict(receipt)}
    for item in data["audited"]:
        item["verdict"] = item["verdict"].value
    return _written(data)


def read_receipt(folder: Path) -> Receipt:
    """The receipt in a folder.

    Raises:
        InputError: missing, damaged, not as it is written, or of a newer edgeproof.
    """
    path = folder / RECEIPT
    try:
        receipt = read_own(path, SCHEMA, lambda raw: typed(Receipt, raw, exact=(OutputFile,)))
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is this a receipt?") from None
    if _written(json.loads(data)) != data:
        raise InputError(f"{path}: damaged, not as it is written")
    return receipt


def _written(data: object) -> bytes:
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
