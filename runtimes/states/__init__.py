"""The hidden states of an artifact, taken from its real runtime while it reads a text.

They carry the names of `runtimes.pytorch.TorchRuntime.states`, as many of them as the runtime
shows, and are laid out alike: float32 [T, width], queries and keys in Hugging Face's rotary order;
the logits are there as `LOGITS`.

The residual stream is there before every layer (`model.layers.N.input`), and before the last norm
(`model.norm.input`). A format's `trace` raises InputError where the runtime refuses the artifact
or shows no residual stream of it.
"""

from __future__ import annotations

LOGITS = "lm_head"
LAST_NORM = "model.norm"


def residual(layer: int) -> str:
    """The residual stream before a layer."""
    return f"model.layers.{layer}.input"


__all__ = ["LAST_NORM", "LOGITS", "residual"]
