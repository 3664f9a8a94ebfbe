"""Rotary base and scaling of a GGUF file, as config.json states them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families.long_rope import LONG_ROPE, ORIGINAL, SHARE, attention_factor
from edgeproof.families.rope import DEFAULT_THETA, Llama3Scaling, divisors
from export.llamacpp.tensors import ROPE_FREQS, ROPE_LONG, ROPE_SHORT
from export.sources.gguf_container import GgufFile

Json = dict[str, Any]
# The file has only the divisors that follow from these numbers. Every Llama 3.1, 3.2 and 3.3 has
# the same, but for the factor, which is the largest divisor.
LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR, ORIGINAL_POSITIONS = 1.0, 4.0, 8192
# Relative; converters round the numbers in other ways.
TOLERANCE = 1e-5


def rope_config(file: GgufFile, prefix: str, head_dim: int) -> Json:
    """`rope_theta`, and `rope_scaling` where there is one.

    Raises:
        InputError: a scaling that no config.json describes, an unknown one, or heads of which only
            a part is rotated.
    """
    key = f"{prefix}.rope.dimension_count"
    if file.metadata.integer(key, head_dim) != head_dim:
        raise InputError(f"{file.path}: {key} differs from the head size {head_dim}: unsupported")
    theta, scaling = _theta(file, prefix), _linear(file, prefix)
    if ROPE_FREQS in file.tensors:
        if scaling is not None:
            raise InputError(f"{file.path}: both {ROPE_FREQS} and linear scaling: unsupported")
        scaling = _llama3(file, theta, head_dim)
    return {"rope_theta": theta, **({} if scaling is None else {"rope_scaling": scaling})}


def long_rope_config(file: GgufFile, prefix: str, head_dim: int) -> Json:
    """The same of Phi-3: a share of the channels may be rotated, and there may be two tables.

    Raises:
        InputError: as for `rope_config`, or a table is missing, misshapen or not of divisors.
    """
    meta = file.metadata
    rotated = meta.integer(f"{prefix}.rope.dimension_count", head_dim)
    positions = meta.integer(f"{prefix}.context_length")
    original = meta.integer(f"{prefix}.rope.scaling.original_context_length", positions)
    scaling = _linear(file, prefix)
    if ROPE_LONG in file.tensors or ROPE_SHORT in file.tensors:
        if scaling is not None:
            raise InputError(f"{file.path}: both {ROPE_LONG} and linear scaling: unsupported")
        attention = meta.number(f"{prefix}.rope.scaling.attn_factor", 1.0)
        scaling = _long(file, rotated // 2)
        if not _is_usual(attention, positions, original):
            scaling["attention_factor"] = attention
    return {
        "rope_theta": _theta(file, prefix),
        **({} if scaling is None else {"rope_scaling": scaling}),
        **({} if rotated == head_dim else {SHARE: _share(rotated, head_dim)}),
        ORIGINAL: original,
    }


def _share(rotated: int, head_dim: int) -> float:
    """The share of a head's channels of which PyTorch makes that number, rounding down."""
    share = rotated / max(1, head_dim)
    return share if int(head_dim * share) == rotated else math.nextafter(share, math.inf)


def _theta(file: GgufFile, prefix: str) -> float:
    return file.metadata.number(f"{prefix}.rope.freq_base", DEFAULT_THETA)


def _linear(file: GgufFile, prefix: str) -> Json | None:
    meta, key = file.metadata, f"{prefix}.rope.scaling.type"
    kind = meta.text(key, "none")
    factor = meta.number(f"{prefix}.rope.scaling.factor", 1.0)
    if kind not in ("none", "linear"):
        raise InputError(f"{file.path}: {key} = {kind!r} is not supported yet")
    if kind == "none" or factor in (0.0, 1.0):
        return None
    return {"rope_type": "linear", "factor": factor}


def _long(file: GgufFile, pairs: int) -> Json:
    """Divisors as the shortest decimals that name them."""
    tables = {"short_factor": ROPE_SHORT, "long_factor": ROPE_LONG}
    return {
        "rope_type": LONG_ROPE,
        **{key: [float(str(x)) for x in _table(file, name, pairs)] for key, name in tables.items()},
    }


def _is_usual(attention: float, positions: int, original: int) -> bool:
    """Whether a config that does not say it has this factor."""
    if original < 2:
        return False
    usual = np.float32(attention_factor(positions / original, original))
    return bool(usual == np.float32(attention))


def _table(file: GgufFile, name: str, pairs: int) -> np.ndarray:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise InputError(f"{file.path}: tensor {name} is missing")
    if tensor.storage.name != "F32" or tensor.shape != (pairs,):
        raise InputError(
            f"{file.path}: tensor {name} is {tensor.storage.name} {list(tensor.shape)},"
            f" expected F32 {[pairs]}"
        )
    return np.asarray(file.raw_rows(tensor).reshape(-1).view("<f4"))


def _llama3(file: GgufFile, theta: float, head_dim: int) -> Json:
    stored = _table(file, ROPE_FREQS, head_dim // 2)
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
