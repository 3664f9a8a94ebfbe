"""`recovery.json`: what a recovered checkpoint lies on, and from what and how it was made.

A recovered checkpoint is a Hugging Face folder whose matrices are products scale × code of the
grids named here, so that exporters write them without rounding a second time. Nothing in the file
depends on folder names, clock or machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeproof import __version__
from edgeproof.checkpoints.weight_files import weight_files
from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import file_sha256, remembered_sha256
from edgeproof.files.own import read_own, typed, wrong
from edgeproof.files.schema import Schema

RECOVERY = "recovery.json"
SCHEMA = Schema(
    current=1,
    oldest=1,
    again="run `python -m runtimes.recover` again",
    what="a record of a recovery",
)
# Each has one float16 scale for 32 consecutive inputs; a value is the float32 product scale × code.
# q4, q5, q8 have the codes −8 … 7, −16 … 15, −127 … 127, iq4_nl those of llama.cpp's codebook.
GRIDS = ("q4", "q5", "q8", "iq4_nl")
# `kvalues_iq4nl` of ggml (ggml-common.h).
IQ4_NL_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
SHA256 = re.compile(r"[0-9a-f]{64}")
BESIDE = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class Original:
    """The checkpoint that was recovered; `digest` is its `checkpoint_digest`.

    `repo` and `revision` are None for a folder of unknown origin; `found_by` is what `--model`
    finds it by on any machine, None for a folder or file.
    """

    name: str
    digest: str
    repo: str | None = None
    revision: str | None = None
    found_by: str | None = None


@dataclass(frozen=True)
class CalibrationText:
    """What was measured on: SHA-256 of the token ids as the recovery stores them, their number."""

    sha256: str
    tokens: int


@dataclass(frozen=True)
class Recovery:
    """The parsed file.

    Attributes:
        original: what it was made from.
        grids: Hugging Face name of a tensor → the name of its grid in `GRIDS`. What is not named
            lies on none; norms among it hold float16 values.
        method: what decides the result, as JSON: for people and caches.
        text: the calibration text.
        versions: of the libraries that computed it.
    """

    original: Original
    grids: Mapping[str, str]
    method: Mapping[str, Any]
    text: CalibrationText
    versions: Mapping[str, str]

    def save(self, folder: Path) -> None:
        """Write `recovery.json` into a checkpoint's folder: stable text, sorted keys."""
        content = {"schema": SCHEMA.current, "edgeproof": __version__, **asdict(self)}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        write_atomic(folder / RECOVERY, text.encode())


def read_recovery(folder: Path) -> Recovery | None:
    """The record of a recovered checkpoint's folder; None where there is none.

    Raises:
        InputError: it is damaged, names an unknown grid, or a newer edgeproof wrote it.
    """
    path = folder / RECOVERY
    try:
        found = read_own(path, SCHEMA, _recovery)
    except FileNotFoundError:
        return None
    unknown = sorted(grid for grid in found.grids.values() if grid not in GRIDS)
    if unknown:
        known = ", ".join(GRIDS)
        raise InputError(f"{path}: unknown grid {unknown[0][:40]!r}; known are {known}")
    return found


def _recovery(raw: dict[str, Any]) -> Recovery:
    found = typed(Recovery, raw, exact=(Original, CalibrationText))
    digests = {"original.digest": found.original.digest, "text.sha256": found.text.sha256}
    for key, digest in digests.items():
        if not SHA256.fullmatch(digest):
            raise wrong(key, "a SHA-256", digest)
    return found


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 that identifies a checkpoint's function and tokens, whatever its folder is called.

    It is that of the lines `<SHA-256>  <file name>`, sorted by name, of config.json, tokenizer.json
    and the safetensors files that count.

    Raises:
        InputError: such a file cannot be read.
    """
    beside = [folder / name for name in BESIDE if (folder / name).is_file()]
    files = sorted([*weight_files(folder).paths, *beside], key=lambda path: path.name)
    digests = cache_folder() / "digests"
    lines = [f"{remembered_sha256(path, digests)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """The same of the safetensors files alone, each read.

    Raises:
        InputError: one cannot be read.
    """
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(weight_files(folder).paths)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
