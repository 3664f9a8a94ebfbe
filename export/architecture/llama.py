"""The table of the Llama family: which config keys it has and which tensors follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.architecture.decoder import DecoderConfig, Parameter, Role
from export.errors import InputError

REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
# Each of these changes the function computed; exporting without it would be silently wrong.
UNSUPPORTED_WHEN_SET = ("attention_bias", "mlp_bias")
DEFAULT_ROPE_THETA = 10000.0
DEFAULT_NORM_EPS = 1e-6


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Llama decoder.

    Both spellings of the rotary base are read: `rope_theta` (transformers 4) and
    `rope_parameters.rope_theta` (transformers 5).

    Raises:
        InputError: a key is missing or asks for something that is not exported yet.
    """
    for key in REQUIRED:
        if not isinstance(raw.get(key), int) or raw[key] <= 0:
            raise InputError(f"{key} must be a positive integer, not {raw.get(key)!r}")
    for key in UNSUPPORTED_WHEN_SET:
        if raw.get(key):
            raise InputError(f"{key} = {raw[key]!r} is not supported yet")
    if raw.get("hidden_act", "silu") != "silu":
        raise InputError(f"hidden_act = {raw['hidden_act']!r} is not supported; expected 'silu'")
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise InputError(f"rope scaling of type {rope_type!r} is not supported yet")
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    kv_heads = raw.get("num_key_value_heads") or heads
    head_dim = raw.get("head_dim") or hidden // heads
    if heads % kv_heads or (not raw.get("head_dim") and hidden % heads) or head_dim % 2:
        raise InputError(
            f"{hidden} channels, {heads} heads, {kv_heads} key/value heads of {head_dim} do not fit"
        )
    return DecoderConfig(
        family="llama",
        hidden=hidden,
        intermediate=raw["intermediate_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=raw["vocab_size"],
        max_positions=raw["max_position_embeddings"],
        norm_eps=float(raw.get("rms_norm_eps", DEFAULT_NORM_EPS)),
        rope_theta=float(rope.get("rope_theta", raw.get("rope_theta", DEFAULT_ROPE_THETA))),
        tied=bool(raw.get("tie_word_embeddings", False)),
    )


def parameters(c: DecoderConfig) -> tuple[Parameter, ...]:
    """Every tensor of the checkpoint, in forward order. Linear weights are [out, in]."""
    q_rows, kv_rows = c.heads * c.head_dim, c.kv_heads * c.head_dim
    per_layer = (
        ("input_layernorm", (c.hidden,), Role.INPUT_NORM),
        ("self_attn.q_proj", (q_rows, c.hidden), Role.QUERY),
        ("self_attn.k_proj", (kv_rows, c.hidden), Role.KEY),
        ("self_attn.v_proj", (kv_rows, c.hidden), Role.VALUE),
        ("self_attn.o_proj", (c.hidden, q_rows), Role.OUTPUT),
        ("post_attention_layernorm", (c.hidden,), Role.POST_NORM),
        ("mlp.gate_proj", (c.intermediate, c.hidden), Role.GATE),
        ("mlp.up_proj", (c.intermediate, c.hidden), Role.UP),
        ("mlp.down_proj", (c.hidden, c.intermediate), Role.DOWN),
    )
    table = [Parameter("model.embed_tokens.weight", (c.vocab, c.hidden), Role.EMBEDDING)]
    table += [
        Parameter(f"model.layers.{layer}.{name}.weight", shape, role, layer)
        for layer in range(c.layers)
        for name, shape, role in per_layer
    ]
    table.append(Parameter("model.norm.weight", (c.hidden,), Role.FINAL_NORM))
    if not c.tied:
        table.append(Parameter("lm_head.weight", (c.vocab, c.hidden), Role.HEAD))
    return tuple(table)
