"""The hidden states of an artifact, taken from its real runtime while it reads a text.

They carry the names of `runtimes.pytorch.TorchRuntime.states`, as many of them as the runtime
shows, and are laid out alike: float32 [T, width], queries and keys in Hugging Face's rotary order.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import numpy as np

from edgeproof.artifact import Artifact

TRACERS = {
    "gguf": "runtimes.states.gguf",
    "mlc": "runtimes.states.mlc",
    "onnx": "runtimes.states.onnx",
}
LOGITS = "lm_head"
LAST_NORM = "model.norm"


def trace(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    """Hidden states by name, and the logits as `LOGITS`.

    The residual stream is there before every layer, as what its first norm takes
    (`model.layers.N.input_layernorm.input`), and before the last norm (`model.norm.input`).

    Raises:
        InputError: the runtime refuses the artifact, or shows no residual stream of it.
    """
    states: dict[str, np.ndarray] = import_module(TRACERS[artifact.manifest.variant.format]).trace(
        artifact, ids, threads
    )
    return states


def residual(layer: int) -> str:
    """The residual stream before a layer."""
    return f"model.layers.{layer}.input_layernorm.input"


__all__ = ["LAST_NORM", "LOGITS", "residual", "trace"]
