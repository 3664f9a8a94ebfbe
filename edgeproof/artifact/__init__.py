"""Artifacts: folders that are written atomically, hashed, and reused while nothing changed."""

from edgeproof.artifact.foreign import described, foreign_artifact, redescribed
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
    Foreign,
    HashedFile,
    Vocabulary,
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
    "Foreign",
    "HashedFile",
    "Manifest",
    "ModelIdentity",
    "Precision",
    "Recipe",
    "Variant",
    "VariantRecord",
    "Vocabulary",
    "WeightStats",
    "classes_text",
    "described",
    "fallback_text",
    "foreign_artifact",
    "open_artifact",
    "redescribed",
    "reusable",
    "weights_record",
]
