"""What reading one format takes, as one object; it shares no code with what writes the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from edgeproof.artifact import Artifact, Facts
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render
from runtimes.config_facts import Facts as ModelFacts
from runtimes.config_facts import Statement
from runtimes.contents import Content, Origin
from runtimes.protocol import Runtime


@dataclass(frozen=True)
class Stops:
    """The tokens that end a reply, as a file says."""

    key: str
    """Where it says so."""
    tokens: frozenset[int]
    enough: Callable[[frozenset[int]], bool]
    """Whether replies end where they should, given the checkpoint's tokens that end them."""


@dataclass(frozen=True)
class Deployment:
    """A place where users run exports of a format, as people name it."""

    name: str
    activations: str | None
    """Made for exports whose `Facts.activations` are of this dtype; None: for all."""
    device: str
    """What computes there, as `Adapter.device` says it."""
    apart: str | None = None
    """The `Adapter.place` that it is, for what ran there when asked; None: a usual place."""

    def takes(self, facts: Facts) -> bool:
        """Whether an export of these facts is meant for it."""
        return self.activations in (None, facts.activations)


@dataclass(frozen=True)
class Requirement:
    """A file that not every export of a format has, and the demo's engine needs."""

    pattern: str
    missing: str
    """What to do about it, in words."""


@dataclass(frozen=True)
class Engine:
    """What runs exports of a format in the demo's page.

    Patterns are matched with paths inside the artifact, as many parts as they have.
    """

    modules: tuple[str, ...]
    """Its scripts beside the page's, first the one that has the class `Engine`; see demo.md."""
    brought: tuple[Path, ...]
    """Those scripts that are none of the page's own, as another package has them."""
    scripts: tuple[str, ...]
    """The files of `runtimes.browser.packages.FILES` that they load."""
    reads: tuple[str, ...]
    """Patterns of the artifact's files that it reads."""
    requirement: Requirement | None

    def files(self, paths: Iterable[str]) -> list[str]:
        """Those that it reads."""
        return [path for path in paths if any(_matches(path, item) for item in self.reads)]

    def lacks(self, paths: Iterable[str]) -> str | None:
        """What to do where a file that it needs is missing, in words."""
        needed = self.requirement
        if needed is None or any(_matches(path, needed.pattern) for path in paths):
            return None
        return needed.missing


@dataclass(frozen=True)
class Twin:
    """A further file of an artifact that computes the same model, for some other runtime's sake."""

    name: str
    open: Callable[[int], Runtime]
    """In the format's own runtime, on so many threads."""
    states: Callable[[Sequence[int], int], dict[str, np.ndarray]]
    """As `Reader.states`, of this file."""
    apart: Callable[[], Sequence[str]]
    """Modules and tensors, by the checkpoint's names, that it has otherwise than the other file.

    Raises:
        OSError, ValueError: a file cannot be read.
    """


@dataclass(frozen=True)
class Reader:
    """One format. Every field has to be said; what a format has not is None or empty.

    The functions import what they need when they are called, so that a reader can be looked at
    without any runtime. They raise InputError where a file cannot be read.
    """

    adapter: Adapter
    """The runtime that executes it."""
    others: Mapping[str, Adapter]
    """Further runtimes, by the names that ask for them (`--runtime`)."""
    weights: Callable[[Artifact], Mapping[str, np.ndarray]]
    """See `runtimes.formats.dequantise`."""
    states: Callable[[Artifact, Sequence[int], int], dict[str, np.ndarray]]
    """Hidden states of token ids on so many threads, out of the runtime: `runtimes.states`."""
    twins: Callable[[Artifact], Sequence[Twin]]
    """Files beside the one that `adapter` opens that have to compute the same."""
    chat_template: Callable[[Artifact], Render | None]
    """The file's own chat template; None where it has none (base models)."""
    stops: Callable[[Artifact], Stops]
    """What ends a reply."""
    statements: Callable[[Artifact, ModelFacts], Iterable[Statement]]
    """What it says of the model beside weights, given the checkpoint's facts."""
    contents: Callable[[Artifact, Origin], Iterable[Content]]
    """Every file of an artifact, with what each key of it has to be: `runtimes.contents`."""
    deployments: tuple[Deployment, ...]
    """Where its exports are run: the reports name the smallest that passes for each."""
    marker: str
    """Matplotlib's marker of its exports in plots."""
    engine: Engine | None
    """What runs it in the demo's page."""


def _matches(path: str, pattern: str) -> bool:
    parts = PurePosixPath(path)
    return parts.match(pattern) and len(parts.parts) == len(PurePosixPath(pattern).parts)
