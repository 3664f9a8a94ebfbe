"""A record of digests as a file, and how what is found differs from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.digests.files import Digests

FOLDER = Path(__file__).parent
TINY, REAL = FOLDER / "tiny.json", FOLDER / "real.json"
# What writes bytes of the checkpoints or of the files, beside edgeproof.
LIBRARIES = ("ml_dtypes", "numpy", "onnx", "protobuf", "safetensors", "tokenizers")

Artifacts = dict[str, Digests]  # artifact → file → digest


@dataclass(frozen=True)
class Record:
    """The digests of artifacts in groups, and the libraries' versions that they were made with."""

    libraries: dict[str, str]
    groups: dict[str, Artifacts]


def installed(libraries: tuple[str, ...]) -> dict[str, str]:
    """Library → installed version."""
    return {name: version(name) for name in libraries}


def read(path: Path) -> Record:
    return Record(**json.loads(path.read_text()))


def write(path: Path, groups: dict[str, Artifacts], libraries: tuple[str, ...]) -> None:
    record = {"libraries": installed(libraries), "groups": groups}
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def differences(record: Record, group: str, found: Artifacts) -> list[str]:
    """One line for each file that is not as recorded, and one on the libraries; none if all are."""
    expected = record.groups[group]
    lines = [
        f"{group} · {artifact} · {file}: {_verdict(artifact, file, expected, found)}"
        for artifact in sorted(expected.keys() | found.keys())
        for file in sorted(expected.get(artifact, {}).keys() | found.get(artifact, {}).keys())
        if expected.get(artifact, {}).get(file) != found.get(artifact, {}).get(file)
    ]
    return [*lines, other_libraries(record)] if lines else []


def _verdict(artifact: str, file: str, expected: Artifacts, found: Artifacts) -> str:
    if file not in expected.get(artifact, {}):
        return "not in the record"
    if file not in found.get(artifact, {}):
        return "not written"
    return "other bytes than recorded"


def other_libraries(record: Record) -> str:
    """Which libraries have another version than the record's, in a sentence."""
    now = installed(tuple(record.libraries))
    others = [
        f"{name} is {now[name]} here, {then} in the record"
        for name, then in record.libraries.items()
        if now[name] != then
    ]
    if not others:
        return "The libraries are those of the record, so edgeproof writes other bytes."
    return f"Perhaps not edgeproof but a library writes other bytes: {'; '.join(others)}."
