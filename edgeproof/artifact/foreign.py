"""Artifacts that others made: no manifest of their own says what they are.

What one is follows from its bytes; whoever inspected them says so here, and nothing is written
beside the files. A process of its own is told as text.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgeproof.artifact.manifest import Manifest
from edgeproof.artifact.store import Artifact, Foreign
from edgeproof.files.own import DamagedFileError, json_object

SAID = "what was found of a file"


def foreign_artifact(folder: Path, manifest: Manifest, foreign: Foreign) -> Artifact:
    """An artifact of files in a folder, with what was found of them in place of a manifest."""
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return Artifact(folder, manifest, digest, foreign)


def described(artifact: Artifact, foreign: Foreign) -> str:
    """What another process needs to open it again."""
    return json.dumps(
        {
            "folder": str(artifact.path),
            "subject": str(foreign.subject),
            "suffix": foreign.suffix,
            "manifest": artifact.manifest.to_json(),
        }
    )


def redescribed(text: str) -> Artifact:
    """The artifact that `described` tells of.

    Raises:
        InputError: the text is no such description.
    """
    try:
        said = json_object(text.encode())
        manifest = Manifest.from_json(said["manifest"].encode(), SAID)
        foreign = Foreign(Path(said["subject"]), said["suffix"])
        return foreign_artifact(Path(said["folder"]), manifest, foreign)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedFileError(f"{SAID}: damaged ({error})") from None
