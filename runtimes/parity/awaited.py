"""Runtimes that are still being installed while others' artifacts are compared already."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.parity.stages import Stages

SECONDS = 0.2  # between looks


@dataclass(frozen=True)
class Awaited:
    """Of each awaited format, the file that will hold the exit code of what installs its runtime.

    Whoever installs it writes that file at once, by renaming (`tools/beside.py`).
    """

    exits: Mapping[str, Path] = field(default_factory=dict)

    def turns(self, artifacts: Sequence[Artifact]) -> list[int]:
        """Indices of artifacts: those whose runtime is awaited last."""
        return sorted(
            range(len(artifacts)), key=lambda index: _form(artifacts[index]) in self.exits
        )

    def wait_for(self, artifact: Artifact, stages: Stages) -> None:
        """Until an artifact's runtime is there.

        Raises:
            InputError: its installation failed, or the file has no exit code.
        """
        form = _form(artifact)
        path = self.exits.get(form)
        if path is not None and not path.exists():
            with stages.subject(f"{form}'s runtime"), stages.phase("being installed"):
                while not path.exists():
                    time.sleep(SECONDS)
            importlib.invalidate_caches()
        if path is not None and _content(path) != b"0":
            raise InputError(
                f"{form}: its runtime could not be installed, so that its artifacts are not"
                f" compared ({path} has its exit code)"
            )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _form(artifact: Artifact) -> str:
    return artifact.manifest.variant.format


NOTHING = Awaited()
