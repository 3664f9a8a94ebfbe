"""`provenance.intoto.json`: an in-toto statement with SLSA provenance: what was made of what, how.

Formats: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance. Folders are named
by their role: what was in them, their digests say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeproof import __version__
from edgeproof.files.hashing import OutputFile
from edgeproof.json_text import parse_json

PROVENANCE = "provenance.intoto.json"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:edgeproof:release:1"
BUILDER = "urn:edgeproof:command-line"


@dataclass(frozen=True)
class Input:
    """Something that a release was made from."""

    name: str
    sha256: str


def provenance_bytes(
    command: Sequence[str], inputs: Iterable[Input], subjects: Iterable[OutputFile]
) -> bytes:
    """The statement, not signed: the release's signature covers it."""
    from google.protobuf.json_format import MessageToDict
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"command": list(command)},
            "resolvedDependencies": [
                {"name": item.name, "digest": {"sha256": item.sha256}} for item in inputs
            ],
        },
        "runDetails": {"builder": {"id": BUILDER, "version": {"edgeproof": __version__}}},
    }
    subject = [
        ResourceDescriptor(name=item.path, digest={"sha256": item.sha256}).pb
        for item in sorted(subjects, key=lambda item: item.path)
    ]
    statement = Statement(subject, PREDICATE, predicate)
    statement.validate()
    raw = MessageToDict(statement.pb)
    return (json.dumps(raw, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def provenance_digests(data: bytes) -> dict[str, str]:
    """Path → SHA-256 of the files that a statement is about.

    Raises:
        ValueError, KeyError, TypeError: not such a statement.
    """
    raw: dict[str, Any] = parse_json(data)
    if raw["predicateType"] != PREDICATE:
        raise ValueError(raw["predicateType"])
    return {item["name"]: item["digest"]["sha256"] for item in raw["subject"]}
