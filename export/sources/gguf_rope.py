"""Rotary base and scaling of a GGUF file, as config.json states them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families.rope import DEFAULT_THETA, Llama3Scaling, divisors
from export.llamacpp.tensors import ROPE_FREQS
from export.sources.gguf_container import GgufFile

# The file has only the divisors that follow from these numbers. Every Llama 3.1, 3.2 and 3.3 has
# the same, but for the factor, which is the largest divisor.
LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR, ORIGINAL_POSITIONS = 1.0, 4.0, 8192
# Relative; converters round the numbers in other ways.
TOLERANCE = 1e-5


def rope_config(file: GgufFile, prefix: str, head_dim: int) -> dict[str, Any]:
    """`rope_theta`, and `rope_scaling` where there is one.

    Raises:
        InputError: a scaling that no config.json describes, or an unknown one.
    """
    meta = file.metadata
    theta = meta.number(f"{prefix}.rope.freq_base", DEFAULT_THETA)
    kind = meta.text(f"{prefix}.rope.scaling.type", "none")
    factor = meta.number(f"{prefix}.rope.scaling.factor", 1.0)
    if kind not in ("none", "linear"):
        raise InputError(f"{file.path}: {prefix}.rope.scaling.type = {kind!r} is not supported yet")
    scaling: dict[str, Any] | None = None
    if factor not in (0.0, 1.0) and kind == "linear":
        scaling = {"rope_type": "linear", "factor": factor}
    if ROPE_FREQS in file.tensors:
        if scaling is not None:
            raise InputError(f"{file.path}: both {ROPE_FREQS} and linear scaling: unsupported")
        scaling = _llama3(file, theta, head_dim)
    return {"rope_theta": theta, **({} if scaling is None else {"rope_scaling": scaling})}


def _llama3(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any]:
    tensor = file.tensors[ROPE_FREQS]
    if tensor.storage.name != "F32" or tensor.shape != (head_dim // 2,):
        raise InputError(
            f"{file.path}: tensor {ROPE_FREQS} is {tensor.storage.name} {list(tensor.shape)},"
            f" expected F32 {[head_dim // 2]}"
        )
    stored = file.raw_rows(tensor).reshape(-1).view("<f4")
    factor = float(stored.max())
    if np.isfinite(stored).all() and factor > 1 and theta > 1:
        scaling = Llama3Scaling(factor, LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR, ORIGINAL_POSITIONS)
        if np.allclose(stored, divisors(head_dim, theta, scaling), rtol=TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW_FREQ_FACTOR,
                "high_freq_factor": HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": ORIGINAL_POSITIONS,
            }
    raise InputError(
        f"{file.path}: tensor {ROPE_FREQS} is not the rope scaling of a published Llama 3; use the"
        " original Hugging Face checkpoint"
    )
