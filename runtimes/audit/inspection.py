"""What is in a file that others made, as its bytes say: nothing is run for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from edgeproof.artifact import MANIFEST, Facts, Precision, WeightStats
from edgeproof.errors import InputError

SMALL = (".json", ".jinja", ".txt", ".model")  # settings, tokenizers


class NoModelError(InputError):
    """A file that is sound, and that is loaded beside a model."""


@dataclass(frozen=True)
class Origin:
    """A repository of the hub, the commit that was fetched, and the folder of its files."""

    repo: str
    commit: str
    folder: Path

    def has(self, path: Path) -> bool:
        """Whether a path, not followed if it is a link, lies in that folder."""
        return Path(os.path.abspath(path)).is_relative_to(self.folder)  # noqa: PTH100  `..`, no links


@dataclass(frozen=True)
class Inspection:
    """One model in one format, of files in a folder.

    `precision` is the class that most of the linear layers' weights are of, whatever a label says.
    """

    format: str
    name: str
    """What tables call it."""
    folder: Path
    subject: Path
    """What was named, or found in a folder that was."""
    files: tuple[str, ...]
    """POSIX paths in the folder, the model's first."""
    suffix: str
    """By which readers ask for the files, whatever these are called; empty: by their names."""
    stats: WeightStats
    precision: Precision
    facts: Facts
    label: str | None
    """The type that it claims to be of; None where it claims none."""
    says: Mapping[str, str]
    """What it says of itself, in the order for people."""
    warnings: tuple[str, ...] = ()
    """What is wrong or missing, though it may run."""
    broken: str | None = None
    """Why no runtime can open it; None where one may."""
    on_disk: int = field(default=0)
    """Bytes of all its files."""
    vocabulary: int | None = None
    """Tokens that it has logits of; None where its files do not say."""
    batches: bool = True
    """Whether its loader pads texts that run together on the left, as most do."""
    origin: Origin | None = None
    """Where on the hub it comes from; None of what lies here."""

    @property
    def place(self) -> tuple[str, ...]:
        """The parts of its path, or of that on the hub: what tells it from others."""
        path = Path(os.path.abspath(self.subject))  # noqa: PTH100  links are not followed
        if self.origin is None:
            return path.parts
        return (*self.origin.repo.split("/"), *path.relative_to(self.origin.folder).parts)

    @property
    def parameters(self) -> int:
        """Stored weights."""
        return sum(entry["elements"] for entry in self.stats.types.values())

    @property
    def bits(self) -> float:
        """Effective bits per stored weight, scales and the like included."""
        return self.stats.effective_bpw(max(1, self.parameters))

    @property
    def shares(self) -> dict[str, float]:
        """Storage type → share of the weights, the largest first."""
        counts = {name: entry["elements"] for name, entry in self.stats.types.items()}
        order = sorted(counts, key=lambda name: (-counts[name], name))
        return {name: counts[name] / max(1, self.parameters) for name in order}


def is_setting(name: str) -> bool:
    """Whether a file of that name is one of a model's settings, as a maker leaves them."""
    path = PurePosixPath(name)
    return path.suffix in SMALL and path.name != MANIFEST


def mostly(counts: Mapping[Precision, int]) -> Precision:
    """The class of most weights; of equal ones the coarsest, whose limits are the widest."""
    order = list(Precision)
    return max(counts, key=lambda item: (counts[item], order.index(item)))
