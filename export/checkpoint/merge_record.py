"""`edgeproof-merge.json`: what a merged checkpoint was made of, by the hashes of all files.

Nothing in the file depends on folder names, clock or machine. It is an input of every export of the
checkpoint, so that an artifact's identity has the adapters' hashes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeproof import __version__
from edgeproof.files.atomic import write_atomic
from edgeproof.files.hashing import OutputFile
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema

MERGE_RECORD = "edgeproof-merge.json"
SCHEMA = Schema(
    current=1, oldest=1, again="export with --adapter again", what="a record of merged adapters"
)


@dataclass(frozen=True)
class MergedPart:
    """A base or an adapter: its files, and where it is from, for what is on a hub or built in."""

    name: str | None
    repo: str | None
    revision: str | None
    license: str | None
    files: tuple[OutputFile, ...]

    @property
    def title(self) -> str:
        """Its name, or the hash of its weights."""
        return self.repo or self.name or f"SHA-256 {self.files[-1].sha256[:12]}…"


@dataclass(frozen=True)
class MergedAdapter(MergedPart):
    """An adapter, and what its change of the weights was multiplied with."""

    weight: float


@dataclass(frozen=True)
class MergeRecord:
    """The base, and the adapters in the order in which they were merged."""

    base: MergedPart
    adapters: tuple[MergedAdapter, ...]

    def save(self, folder: Path) -> None:
        """Write the file into a checkpoint's folder: stable text, sorted keys."""
        content = {"schema": SCHEMA.current, "edgeproof": __version__, **asdict(self)}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        write_atomic(folder / MERGE_RECORD, text.encode())


def read_merge_record(folder: Path) -> MergeRecord | None:
    """The record of a merged checkpoint's folder; None where there is none.

    Raises:
        InputError: it is damaged, or a newer edgeproof wrote it.
    """
    try:
        return read_own(folder / MERGE_RECORD, SCHEMA, _record)
    except FileNotFoundError:
        return None


def _record(raw: dict[str, Any]) -> MergeRecord:
    return typed(MergeRecord, raw, exact=(MergedPart, MergedAdapter, OutputFile))
