"""Hidden states in MLX, from mlx_lm's own modules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeproof.artifact import Artifact
from runtimes.mlx import open_runtime
from runtimes.states import LOGITS


def trace(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    """See `runtimes.states`."""
    runtime = open_runtime(artifact, threads)
    try:
        logits = runtime.logits(ids)
        return {**runtime.states(ids), LOGITS: logits}
    finally:
        runtime.close()
