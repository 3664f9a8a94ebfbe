"""Runtimes that are still being installed while others' artifacts are compared already."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edgeproof.artifact import Artifact
from runtimes.parity.stages import Stages

SECONDS = 0.2  # between looks

Result = TypeVar("Result")
# A comparison that gives way before it waits: what it gives frees memory that it can take again.
Patient = Generator[Callable[[], None], None, Result]


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

    def waits(self, artifact: Artifact) -> bool:
        """Whether `lacking` would wait."""
        path = self.exits.get(_form(artifact))
        return path is not None and not path.exists()

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


def to_end(comparison: Patient[Result]) -> Result:
    """Go on, and wait where it has to."""
    while True:
        try:
            next(comparison)
        except StopIteration as end:
            result: Result = end.value
            return result


def in_rounds(comparisons: Sequence[Patient[Result]]) -> Iterator[tuple[int, Result]]:
    """The results of comparisons with their numbers, as they end.

    One that would wait gives way to those after it, and goes on when they are done.
    """
    waiting = []
    for index, comparison in enumerate(comparisons):
        try:
            rest = next(comparison)
        except StopIteration as end:
            yield index, end.value
        else:
            if len(comparisons) > 1:
                rest()
            waiting.append((index, comparison))
    for index, comparison in waiting:
        yield index, to_end(comparison)


def _form(artifact: Artifact) -> str:
    return artifact.manifest.variant.format


NOTHING = Awaited()
