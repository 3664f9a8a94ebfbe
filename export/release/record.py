"""`manifest.json` of a release: what is in it, how each variant came out, and every file's hash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeproof import __version__
from edgeproof.artifact import ModelIdentity
from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile
from edgeproof.files.own import read_own, typed
from edgeproof.files.schema import Schema
from edgeproof.verdicts import Interval, ParityReport, Verdict, metrics_json
from export.publication import Released, Repository

RECORD = "manifest.json"
SCHEMA = Schema(current=1, oldest=1, again="build the release again", what="a release's manifest")

# The parsed file; its keys are those of `release_record`.
Record = dict[str, Any]


def release_record(
    version: str,
    model: ModelIdentity,
    licence: Any,
    report: ParityReport,
    repositories: Sequence[Repository],
    archives: dict[str, tuple[OutputFile, ...]],
) -> Record:
    """All but the `files`; `archives` is `format variant` → parts."""
    return {
        "schema": SCHEMA.current,
        "edgeproof": __version__,
        "version": version,
        "model": {**asdict(model), "license": licence},
        "parity": {
            "runtime": report.runtime,
            "text": report.text,
            "positions": report.positions,
        },
        "repositories": [
            {"name": item.name, "format": item.format, "variants": list(item.own)}
            for item in repositories
        ],
        "variants": [variant_record(item) for repo in repositories for item in repo.released],
        "archives": {name: [part.path for part in parts] for name, parts in archives.items()},
    }


def with_files(record: Record, files: Iterable[OutputFile]) -> Record:
    """The complete record; `files` are all that are written before it."""
    return {**record, "files": [asdict(f) for f in sorted(files, key=lambda item: item.path)]}


def variant_record(item: Released) -> dict[str, Any]:
    """How a variant came out."""
    manifest, compared = item.artifact.manifest, item.compared
    return {
        "format": compared.format,
        "variant": compared.variant,
        "precision": manifest.variant.precision.value,
        "recipe": manifest.recipe_digest,
        "manifest": compared.manifest,
        "bytes": item.bytes,
        "effective_bpw": manifest.effective_bpw,
        "verdict": compared.verdict.value,
        "reasons": list(compared.reasons),
        "metrics": metrics_json(compared.metrics),
    }


def record_bytes(record: Record) -> bytes:
    """The only way in which it is written, so that a change of any byte shows."""
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def read_record(path: Path) -> Record:
    """Read a release's `manifest.json`; `path` may also be the release's folder.

    Raises:
        InputError: missing, damaged, or one of a newer edgeproof.
    """
    file = path / RECORD if path.is_dir() else path
    try:
        return read_own(file, SCHEMA, _checked)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; is this a release?") from None


def _checked(raw: Record) -> Record:
    typed(_Record, raw, exact=(OutputFile,))
    return raw


@dataclass(frozen=True)
class _Model:
    name: str
    inputs: tuple[OutputFile, ...]
    license: Any


@dataclass(frozen=True)
class _Parity:
    runtime: str
    text: str
    positions: int


@dataclass(frozen=True)
class _Repository:
    name: str
    format: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class _Variant:
    format: str
    variant: str
    manifest: str
    bytes: int
    verdict: Verdict
    reasons: tuple[str, ...]
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class _Record:
    """What is read of the file."""

    version: str
    model: _Model
    parity: _Parity
    repositories: tuple[_Repository, ...]
    variants: tuple[_Variant, ...]
    archives: dict[str, tuple[str, ...]]
    files: tuple[OutputFile, ...]
