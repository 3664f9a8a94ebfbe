"""Where an artifact was run and in which arithmetic, and what that leaves open: facts, in words.

They follow from what its adapter and its format's reader state, whatever the run found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeproof.artifact import Artifact
from runtimes.adapter import Adapter
from runtimes.formats import Deployment, reader_of
from runtimes.registry import adapter_of


@dataclass(frozen=True)
class Execution:
    """How an artifact was run."""

    device: str
    """cpu, gpu or cuda."""
    activations: str | None
    """Type between operators; null where the runtime decides."""
    real: bool
    """Whether users run exports of the format in this runtime; else it stands in for theirs."""
    unseen: tuple[str, ...]
    """What it does not show: where the artifact is meant to run and was not run, in words."""
    place: str | None = None
    """Where users have that runtime, if it is none of those places; else null."""

    @property
    def arithmetic(self) -> str:
        """Device and type in a few words."""
        kind = "" if self.real else "a stand-in, "
        return f"{kind}{self.activations or 'its own types'} on the {self.device.upper()}"


def execution(artifact: Artifact, other: str | None = None) -> Execution:
    """How an artifact is run, in its format's usual runtime or in the `other` one named.

    Raises:
        InputError: there is no such runtime for the format.
    """
    adapter = adapter_of(artifact, other)
    return Execution(
        adapter.device,
        _activations(artifact, adapter),
        adapter.real,
        tuple(text for _, text in unseen(artifact, other)),
        adapter.place,
    )


def unseen(artifact: Artifact, other: str | None = None) -> Iterator[tuple[Deployment, str]]:
    """The places where the artifact is meant to run and was not run, and that in words.

    Raises:
        InputError: there is no such runtime for the format.
    """
    adapter = adapter_of(artifact, other)
    dtype = _activations(artifact, adapter)
    for place in reader_of(artifact).deployments:
        meant = place.takes(artifact.manifest.variant.facts)
        if meant and not executed(adapter, place):
            yield place, _unseen(adapter, dtype, place)


def executed(run: Adapter | Execution, place: Deployment) -> bool:
    """Whether what ran somewhere shows how it runs at a place."""
    return run.real and run.place == place.apart and run.device == place.device


def _activations(artifact: Artifact, adapter: Adapter) -> str | None:
    return adapter.activations or artifact.manifest.variant.facts.activations


def _unseen(adapter: Adapter, dtype: str | None, place: Deployment) -> str:
    libraries = " and ".join(adapter.packages)
    how = "it ran" if adapter.real else f"edgeproof's own decoder in {libraries} stood in for it,"
    if adapter.place:
        how += f" in {adapter.place},"
    return (
        f"not run in {place.name}: {how} on the {adapter.device.upper()} in"
        f" {dtype or 'its own types'}"
    )
