"""Artifacts: folders that are written atomically, hashed, and reused while nothing changed."""

from edgeproof.artifact.labels import classes_text, fallback_text
from edgeproof.artifact.manifest import (
    MANIFEST,
    Fallback,
    Manifest,
    ModelIdentity,
    VariantRecord,
    WeightStats,
    weights_record,
)
from edgeproof.artifact.store import (
    Artifact,
    ArtifactWriter,
    DryRunWriter,
    HashedFile,
    open_artifact,
    reusable,
)
from edgeproof.artifact.variant import Facts, Precision, Recipe, Variant

__all__ = [
    "MANIFEST",
    "Artifact",
    "ArtifactWriter",
    "DryRunWriter",
    "Facts",
    "Fallback",
    "HashedFile",
    "Manifest",
    "ModelIdentity",
    "Precision",
    "Recipe",
    "Variant",
    "VariantRecord",
    "WeightStats",
    "classes_text",
    "fallback_text",
    "open_artifact",
    "reusable",
    "weights_record",
]
