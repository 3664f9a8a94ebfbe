"""`edgeproof-quantised.json`: which reader turned a quantised checkpoint into plain floats.

Nothing in the file depends on folder names, clock or machine. It lies in the checkpoint of plain
floats and is an input of every export of it, so that an artifact's identity has the hashes of the
files that are on the hub.
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

QUANTISED_RECORD = "edgeproof-quantised.json"
SCHEMA = Schema(
    current=1,
    oldest=1,
    again="export the quantised checkpoint again",
    what="a record of a quantised checkpoint",
)


@dataclass(frozen=True)
class QuantisedRecord:
    """What was read.

    Attributes:
        method: `quant_method` of the original's config.json.
        reader: what read it, in words: the form of the weights.
        matrices: how many tensors were stored quantised.
        files: the original's files by name.
    """

    method: str
    reader: str
    matrices: int
    files: tuple[OutputFile, ...]

    @property
    def said(self) -> str:
        """One phrase for notes and reports."""
        return f"{self.matrices} quantised weights ({self.reader}) read by edgeproof as float32"

    def save(self, folder: Path) -> None:
        """Write the file into a checkpoint's folder: stable text, sorted keys."""
        content = {"schema": SCHEMA.current, "edgeproof": __version__, **asdict(self)}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        write_atomic(folder / QUANTISED_RECORD, text.encode())


def read_quantised_record(folder: Path) -> QuantisedRecord | None:
    """The record of a checkpoint's folder; None where there is none.

    Raises:
        InputError: it is damaged, or a newer edgeproof wrote it.
    """
    try:
        return read_own(folder / QUANTISED_RECORD, SCHEMA, _record)
    except FileNotFoundError:
        return None


def _record(raw: dict[str, Any]) -> QuantisedRecord:
    return typed(QuantisedRecord, raw, exact=(OutputFile,))
