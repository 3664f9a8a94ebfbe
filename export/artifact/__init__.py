"""Artifacts: folders that are written atomically, hashed, and reused while nothing changed."""

from export.artifact.labels import classes_text, fallback_text
from export.artifact.manifest import (
    MANIFEST,
    Fallback,
    Manifest,
    ModelIdentity,
    OutputFile,
    WeightStats,
    weights_record,
)
from export.artifact.store import (
    Artifact,
    ArtifactWriter,
    DryRunWriter,
    HashedFile,
    open_artifact,
    reusable,
)
from export.artifact.variant import Precision, Variant

__all__ = [
    "MANIFEST",
    "Artifact",
    "ArtifactWriter",
    "DryRunWriter",
    "Fallback",
    "HashedFile",
    "Manifest",
    "ModelIdentity",
    "OutputFile",
    "Precision",
    "Variant",
    "WeightStats",
    "classes_text",
    "fallback_text",
    "open_artifact",
    "reusable",
    "weights_record",
]
