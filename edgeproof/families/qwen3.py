"""The table of the Qwen3 family: queries and keys are normalised, head by head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.families.decoder import DecoderConfig, Parameter, Role
from edgeproof.families.dense import dense_parameters, read_dense
from edgeproof.families.llama import ATTENTION, NONE
from edgeproof.families.qwen2 import window


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Qwen3 decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    return read_dense(
        raw,
        "qwen3",
        required=("num_key_value_heads", "head_dim"),
        biased=ATTENTION if raw.get("attention_bias") else NONE,
        window=window(raw),
    )


def parameters(c: DecoderConfig) -> tuple[Parameter, ...]:
    """Every tensor of the checkpoint, in forward order. Linear weights are [out, in]."""
    norms = (
        ("self_attn.q_norm.weight", (c.head_dim,), Role.QUERY_NORM),
        ("self_attn.k_norm.weight", (c.head_dim,), Role.KEY_NORM),
    )
    return dense_parameters(c, norms)
