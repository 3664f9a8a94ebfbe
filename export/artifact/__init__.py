"""Artifacts: folders that are written atomically, hashed, and reused while nothing changed."""

from export.artifact.manifest import MANIFEST, Manifest, ModelIdentity, OutputFile, WeightStats
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
    "HashedFile",
    "Manifest",
    "ModelIdentity",
    "OutputFile",
    "Precision",
    "Variant",
    "WeightStats",
    "open_artifact",
    "reusable",
]
