"""parity.json as data: docs/parity.schema.json is generated from these classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from edgeproof.artifact import Precision
from edgeproof.verdicts import SCHEMA, Verdict
from runtimes.parity.advice import Advice, advise
from runtimes.parity.environment import Environment
from runtimes.parity.fields import Keywords, Sha256
from runtimes.parity.gates import Gate
from runtimes.parity.localise.result import Localisation
from runtimes.parity.measure import Measurement
from runtimes.parity.result import (
    Entry,
    ModelResult,
    RecoveredFrom,
    ReferenceFacts,
    Unreadable,
)


@dataclass(frozen=True)
class ArtifactFile:
    """One file of an artifact."""

    path: str
    """POSIX, relative to the artifact's folder."""
    bytes: int
    sha256: Sha256


@dataclass(frozen=True)
class FallbackCount:
    """Tensors that are not in the type that was asked for: their rows do not divide into blocks."""

    asked: str
    block: int
    """Values of a block of the type that was asked for."""
    elements: int
    row: int
    """Values of a row."""
    stored: str
    tensors: int


@dataclass(frozen=True)
class TypeCount:
    """What is stored in one type."""

    bytes: int
    elements: int
    tensors: int


@dataclass(frozen=True)
class WeightStorage:
    """What the weights are stored in, from the artifact's manifest."""

    bytes: int
    """Scales and zero points included."""
    classes: dict[str, dict[str, int]]
    """Kind of tensor → storage type → parameters."""
    effective_bpw: float
    """bytes × 8 / parameters."""
    fallback_share: float
    """Share of parameters that are not in the type that was asked for."""
    fallbacks: tuple[FallbackCount, ...]
    types: dict[str, TypeCount]
    """By storage type."""


@dataclass(frozen=True)
class ComparedArtifact:
    """One export: what it is, how it was judged, what was measured."""

    format: str
    """Such as onnx, gguf or mlc."""
    variant: str
    """Its dtype, with options."""
    precision: Precision
    """The class whose gates apply."""
    recipe: str
    """Hash of everything the bytes follow from."""
    manifest: Sha256
    """SHA-256 of the artifact's edgeproof.json; without one, of what an audit found."""
    files: tuple[ArtifactFile, ...]
    bytes: int
    """All files together."""
    weights: WeightStorage
    gates: tuple[Gate, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why it is not PASS, in words."""
    notes: tuple[str, ...]
    """What did not decide, but a reader should know."""
    allow_degraded: bool
    """Whether the plan accepts DEGRADED and INCONCLUSIVE."""
    accepted: bool
    """Whether the plan's requirement is met."""
    localisation: Localisation | None
    """Null where nobody asked: it passed."""
    measurement: Measurement | None
    """Null when the artifact could not be opened."""
    recovered: RecoveredFrom | None
    """Null where it was made from the model as it is."""


@dataclass(frozen=True)
class ParityDocument:
    """One model's exports compared with PyTorch. KL is in nats; NaN and infinity are null."""

    schema: Annotated[int, Keywords(const=SCHEMA.current)]
    """Goes up with every change of keys or meaning."""
    model: str
    """Its name."""
    reference: ReferenceFacts
    environment: Environment
    artifacts: tuple[ComparedArtifact, ...]
    advice: Advice
    accepted: bool
    """Whether every artifact is, and can be read."""
    unreadable: tuple[Unreadable, ...]
    """Folders of the run that could not be compared: each is a FAIL."""


def document(result: ModelResult) -> ParityDocument:
    """The document of one model's result."""
    return ParityDocument(
        schema=SCHEMA.current,
        model=result.label,
        reference=result.reference,
        environment=result.environment,
        artifacts=tuple(_artifact(entry) for entry in result.entries),
        advice=advise(result.entries),
        accepted=result.accepted,
        unreadable=result.unreadable,
    )


def _artifact(entry: Entry) -> ComparedArtifact:
    manifest = entry.artifact.manifest
    return ComparedArtifact(
        format=manifest.variant.format,
        variant=manifest.variant.name,
        precision=manifest.variant.precision,
        recipe=manifest.recipe_digest,
        manifest=entry.artifact.sha256,
        files=tuple(ArtifactFile(item.path, item.bytes, item.sha256) for item in manifest.outputs),
        bytes=entry.bytes,
        weights=_weights(manifest.weights),
        gates=entry.gates,
        verdict=entry.judgement.verdict,
        reasons=entry.judgement.reasons,
        notes=entry.judgement.notes,
        allow_degraded=entry.allow_degraded,
        accepted=entry.accepted,
        localisation=entry.localisation,
        measurement=entry.measurement,
        recovered=entry.recovered,
    )


def _weights(section: Mapping[str, Any]) -> WeightStorage:
    """The manifest's `weights`."""
    return WeightStorage(
        bytes=section["bytes"],
        classes=section["classes"],
        effective_bpw=section["effective_bpw"],
        fallback_share=section["fallback_share"],
        fallbacks=tuple(FallbackCount(**item) for item in section["fallbacks"]),
        types={name: TypeCount(**count) for name, count in section["types"].items()},
    )
