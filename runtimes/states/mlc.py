"""Hidden states in TVM, from a build of the decoder's layer that shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from runtimes.states import LOGITS
from runtimes.tvm.runtime import TvmRuntime
from runtimes.weights.fused import Heads, split


def trace(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    """See `runtimes.states`."""
    heads = Heads.of(read_json(artifact.path / "mlc-chat-config.json")["model_config"])
    runtime = TvmRuntime(artifact, threads)
    try:
        found = {**runtime.states(ids), LOGITS: runtime.logits(ids)}
    finally:
        runtime.close()
    states: dict[str, np.ndarray] = {}
    for name, rows in found.items():
        # The outputs of a fused projection are cut as the rows of its weight are.
        for part, columns in split(f"{name}.weight", rows.T, heads):
            states[part.removesuffix(".weight")] = columns.T
    return states
