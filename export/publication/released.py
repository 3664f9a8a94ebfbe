"""What may be released, and which of it is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproof.artifact import Artifact

if TYPE_CHECKING:
    from edgeproof.verdicts import Compared


@dataclass(frozen=True)
class Released:
    """An artifact that may be released, and how it came out."""

    artifact: Artifact
    compared: Compared

    @property
    def bytes(self) -> int:
        """Size of all its files, without the manifest."""
        return sum(item.bytes for item in self.artifact.manifest.outputs)

    @property
    def passed(self) -> bool:
        """Whether every gate is met, so that no warning is due."""
        return self.compared.verdict.accepted(allow_degraded=False)


def recommended(released: Sequence[Released]) -> Released:
    """The smallest that passes; where none does, the largest: it is nearest to the original."""
    passing = [item for item in released if item.passed]
    if passing:
        return min(passing, key=lambda item: item.bytes)
    return max(released, key=lambda item: item.bytes)
