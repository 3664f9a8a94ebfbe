"""Where an artifact breaks: which file, tensor, key, layer and step, named in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.artifact import Artifact
from runtimes.parity.localise.result import (
    Cause,
    Component,
    Finding,
    LayerError,
    Localisation,
    TensorError,
)
from runtimes.parity.measure import Measurement

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime


@dataclass(frozen=True)
class Subject:
    """An artifact, its checkpoint folder, and what both are run on.

    `original` has the checkpoint's weights, `own` is given the artifact's. `ids` is a short
    document; `tensors` are the artifact's weights where they have been read already.
    """

    artifact: Artifact
    checkpoint: Path
    original: TorchRuntime
    own: TorchRuntime
    ids: Sequence[int]
    threads: int
    runtime: str | None = None
    tensors: Mapping[str, np.ndarray] | None = None


def localise(
    subject: Subject, measurement: Measurement | None, *, trace: bool = True
) -> Localisation:
    """Say where the artifact breaks; `measurement` is None where it could not be opened.

    Without `trace` no hidden states are compared: cheap, and enough for tokenizer, template,
    metadata and weights.
    """
    raise NotImplementedError


__all__ = [
    "Cause",
    "Component",
    "Finding",
    "LayerError",
    "Localisation",
    "Subject",
    "TensorError",
    "localise",
]
