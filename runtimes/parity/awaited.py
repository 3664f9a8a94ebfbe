"""Runtimes that are still being installed while others' artifacts are compared already."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeproof.artifact import Artifact
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

    def lacking(self, artifact: Artifact, stages: Stages) -> str | None:
        """Wait until an artifact's runtime is there; in words why it will not be, or None."""
        form = _form(artifact)
        path = self.exits.get(form)
        if path is None:
            return None
        if not path.exists():
            with stages.subject(f"{form}'s runtime"), stages.phase("being installed"):
                while not path.exists():
                    time.sleep(SECONDS)
            importlib.invalidate_caches()
        try:
            told = path.read_bytes().strip()
        except OSError as error:
            return f"not run: {path} cannot be read ({error.strerror})"
        if told == b"0":
            return None
        return f"not run: its runtime could not be installed ({path} has the exit code)"


def _form(artifact: Artifact) -> str:
    return artifact.manifest.variant.format


NOTHING = Awaited()
