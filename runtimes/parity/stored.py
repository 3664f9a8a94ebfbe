"""What an artifact holds against the checkpoint, without running it: metadata and every weight.

Text shows what it touches. A row of a token that no text has, a scale that is off by two among
millions, or an ε that the activations drown would pass every gate, and still be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.artifact import Artifact
from runtimes.json_file import read_json
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.localise.result import Finding
from runtimes.parity.localise.tensors import wrong_tensors
from runtimes.weights.fused import Heads


def metadata_faults(artifact: Artifact, checkpoint: Path) -> list[str]:
    """What the artifact says wrongly of the model.

    Raises:
        InputError: a config of the artifact cannot be read.
    """
    return [f"metadata: {finding.text}" for finding in compare_metadata(artifact, checkpoint)]


def weight_faults(
    artifact: Artifact,
    checkpoint: Path,
    stored: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> list[str]:
    """At most one line, on all stored tensors that rounding to their type does not explain."""
    heads = Heads.of(read_json(checkpoint / "config.json"))
    precision = artifact.manifest.variant.precision
    found = wrong_tensors(stored, expected, precision, heads)
    return [f"weights: {_listed(found)}"] if found else []


def _listed(found: tuple[Finding, ...]) -> str:
    more = f" (and {len(found) - 1} more tensors)" if len(found) > 1 else ""
    return found[0].text + more
