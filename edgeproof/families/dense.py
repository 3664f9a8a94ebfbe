"""What the families of dense decoders share: most config keys, and the tensors of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import BIASES, DecoderConfig, Parameter, Role
from edgeproof.families.rope import read_rope

REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
DEFAULT_NORM_EPS = 1e-6
FULL = "full_attention"  # of `layer_types`

# Name, shape and role of one tensor of a layer.
Row = tuple[str, tuple[int, ...], Role]


def read_dense(
    raw: Mapping[str, Any],
    family: str,
    *,
    required: tuple[str, ...] = (),
    biased: frozenset[Role] = frozenset(),
    window: Any = None,
) -> DecoderConfig:
    """Read config.json of a dense decoder.

    Args:
        raw: the parsed file.
        family: the name of the family's table.
        required: keys that the family gives another default than the others.
        biased: linear layers with a bias.
        window: how many positions a token sees; None for all before it.

    Raises:
        InputError: a key is missing or asks for something that is not exported.
    """
    for key in (*REQUIRED, *required):
        if not isinstance(raw.get(key), int) or raw[key] <= 0:
            raise InputError(f"{key} must be a positive integer, not {raw.get(key)!r}")
    if raw.get("hidden_act", "silu") != "silu":
        raise InputError(f"hidden_act = {raw['hidden_act']!r} is not supported; expected 'silu'")
    _check_full_attention(raw, window)
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    kv_heads = raw.get("num_key_value_heads") or heads
    head_dim = raw.get("head_dim") or hidden // heads
    if heads % kv_heads or (not raw.get("head_dim") and hidden % heads) or head_dim % 2:
        raise InputError(
            f"{hidden} channels, {heads} heads, {kv_heads} key/value heads of {head_dim} do not fit"
        )
    theta, scaling = read_rope(raw)
    return DecoderConfig(
        family=family,
        hidden=hidden,
        intermediate=raw["intermediate_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=raw["vocab_size"],
        max_positions=raw["max_position_embeddings"],
        norm_eps=float(raw.get("rms_norm_eps", DEFAULT_NORM_EPS)),
        rope_theta=theta,
        rope_scaling=scaling,
        tied=bool(raw.get("tie_word_embeddings", False)),
        biased=biased,
    )


def dense_parameters(
    c: DecoderConfig, attention_norms: tuple[Row, ...] = ()
) -> tuple[Parameter, ...]:
    """Every tensor of the checkpoint, in forward order. Linear weights are [out, in].

    `attention_norms` are a family's own, between the projections and attention.
    """
    q_rows, kv_rows = c.heads * c.head_dim, c.kv_heads * c.head_dim
    layer_rows = (
        _norm("input_layernorm", c.hidden, Role.INPUT_NORM),
        *_linear(c, "self_attn.q_proj", (q_rows, c.hidden), Role.QUERY),
        *_linear(c, "self_attn.k_proj", (kv_rows, c.hidden), Role.KEY),
        *_linear(c, "self_attn.v_proj", (kv_rows, c.hidden), Role.VALUE),
        *attention_norms,
        *_linear(c, "self_attn.o_proj", (c.hidden, q_rows), Role.OUTPUT),
        _norm("post_attention_layernorm", c.hidden, Role.POST_NORM),
        *_linear(c, "mlp.gate_proj", (c.intermediate, c.hidden), Role.GATE),
        *_linear(c, "mlp.up_proj", (c.intermediate, c.hidden), Role.UP),
        *_linear(c, "mlp.down_proj", (c.hidden, c.intermediate), Role.DOWN),
    )
    parameters = [Parameter("model.embed_tokens.weight", (c.vocab, c.hidden), Role.EMBEDDING)]
    parameters += [
        Parameter(f"model.layers.{layer}.{name}", shape, role, layer)
        for layer in range(c.layers)
        for name, shape, role in layer_rows
    ]
    parameters.append(Parameter("model.norm.weight", (c.hidden,), Role.FINAL_NORM))
    if not c.tied:
        parameters.append(Parameter("lm_head.weight", (c.vocab, c.hidden), Role.HEAD))
    return tuple(parameters)


def _norm(name: str, size: int, role: Role) -> Row:
    return f"{name}.weight", (size,), role


def _linear(c: DecoderConfig, name: str, shape: tuple[int, int], role: Role) -> list[Row]:
    rows: list[Row] = [(f"{name}.weight", shape, role)]
    if role in c.biased:
        rows.append((f"{name}.bias", shape[:1], BIASES[role]))
    return rows


def _check_full_attention(raw: Mapping[str, Any], window: Any) -> None:
    """A window of the whole context hides nothing."""
    kinds = raw.get("layer_types") or [FULL]
    if not isinstance(kinds, list) or any(kind != FULL for kind in kinds):
        raise InputError(f"layer_types other than {FULL!r} are not supported")
    positions = raw["max_position_embeddings"]
    if window is not None and (not isinstance(window, int) or window < positions):
        raise InputError(
            f"sliding_window = {window!r} is not supported: every token must see all {positions}"
            " positions"
        )
