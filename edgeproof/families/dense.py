"""What the families of dense decoders share: most config keys, and the tensors of a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import DecoderConfig, Parameter
from edgeproof.families.roles import BIASES, Role
from edgeproof.families.rope import Rope, read_rope
from edgeproof.families.structure import Activation, Layer, Multipliers, Structure

REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
DEFAULT_NORM_EPS = 1e-6
FULL, SLIDING = "full_attention", "sliding_attention"  # of `layer_types`
# Role → module of the checkpoint, as most families name it.
NAMES: Mapping[Role, str] = {
    Role.EMBEDDING: "model.embed_tokens",
    Role.INPUT_NORM: "model.layers.{layer}.input_layernorm",
    Role.QUERY: "model.layers.{layer}.self_attn.q_proj",
    Role.KEY: "model.layers.{layer}.self_attn.k_proj",
    Role.VALUE: "model.layers.{layer}.self_attn.v_proj",
    Role.QUERY_NORM: "model.layers.{layer}.self_attn.q_norm",
    Role.KEY_NORM: "model.layers.{layer}.self_attn.k_norm",
    Role.OUTPUT: "model.layers.{layer}.self_attn.o_proj",
    Role.MLP_NORM: "model.layers.{layer}.post_attention_layernorm",
    Role.GATE: "model.layers.{layer}.mlp.gate_proj",
    Role.UP: "model.layers.{layer}.mlp.up_proj",
    Role.DOWN: "model.layers.{layer}.mlp.down_proj",
    Role.FINAL_NORM: "model.norm",
    Role.HEAD: "lm_head",
}
# What a layer may have, in forward order.
LAYER = (
    Role.INPUT_NORM,
    Role.QUERY,
    Role.KEY,
    Role.VALUE,
    Role.QUERY_NORM,
    Role.KEY_NORM,
    Role.OUTPUT,
    Role.ATTENTION_OUT_NORM,
    Role.MLP_NORM,
    Role.GATE,
    Role.UP,
    Role.DOWN,
    Role.MLP_OUT_NORM,
)


OPTIONAL = ("num_key_value_heads", "head_dim")
SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias")
# What formats can say, and no model has: a number of layers that takes no memory to count.
MOST_OF_ALL, MOST = 2**31 - 1, {"num_hidden_layers": 10_000}


def read_dense(
    raw: Mapping[str, Any],
    family: str,
    *,
    required: tuple[str, ...] = (),
    biased: frozenset[Role] = frozenset(),
    window: Any = None,
    first_windowed: int = 0,
    rope: Rope | None = None,
) -> DecoderConfig:
    """Read config.json of a dense decoder: Llama's structure with an activation and windows.

    Args:
        raw: the parsed file.
        family: the name of the family whose decoder it is.
        required: keys that the family gives another default than the others.
        biased: linear layers with a bias.
        window: how many positions a token sees in some layers; None for all before it.
        first_windowed: the first layer with a window, where `layer_types` does not name them.
        rope: the rotary embedding, where the family reads its own kinds.

    Raises:
        InputError: a key is missing or asks for something that is not exported.
    """
    optional = (key for key in OPTIONAL if raw.get(key))
    for key in (*REQUIRED, *required, *optional):
        value = raw.get(key)
        if type(value) is not int or not 0 < value <= MOST.get(key, MOST_OF_ALL):
            raise InputError(f"{key} must be a positive integer, not {value!r}")
    for key in SWITCHES:
        if not isinstance(raw.get(key), bool | None):
            raise InputError(f"{key} must be true or false, not {raw[key]!r}")
    activation = read_activation(raw.get("hidden_act", Activation.SILU.value))
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    kv_heads = raw.get("num_key_value_heads") or heads
    head_dim = raw.get("head_dim") or hidden // heads
    if heads % kv_heads or (not raw.get("head_dim") and hidden % heads) or head_dim % 2:
        raise InputError(
            f"{hidden} channels, {heads} heads, {kv_heads} key/value heads of {head_dim} do not fit"
        )
    rope = rope or read_rope(raw)
    layers = _layers(raw, rope, window, first_windowed)
    return DecoderConfig(
        family=family,
        hidden=hidden,
        intermediate=raw["intermediate_size"],
        layers=len(layers),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=raw["vocab_size"],
        max_positions=raw["max_position_embeddings"],
        norm_eps=_norm_eps(raw.get("rms_norm_eps", DEFAULT_NORM_EPS)),
        rope=rope,
        tied=bool(raw.get("tie_word_embeddings", False)),
        biased=biased,
        structure=Structure(layers, Multipliers(attention=head_dim**-0.5), activation=activation),
    )


def _norm_eps(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise InputError(f"rms_norm_eps must be a number of at least 0, not {value!r}")
    return float(value)


def read_activation(name: Any) -> Activation:
    """The activation of that name in config.json.

    Raises:
        InputError: one that is not exported.
    """
    try:
        return Activation(name)
    except ValueError:
        known = ", ".join(repr(item.value) for item in Activation)
        raise InputError(f"hidden_act = {name!r} is not supported; supported: {known}") from None


def _layers(
    raw: Mapping[str, Any], rope: Rope, window: Any, first_windowed: int
) -> tuple[Layer, ...]:
    """A window of the whole context hides nothing."""
    count, positions = raw["num_hidden_layers"], raw["max_position_embeddings"]
    if window is not None and (not isinstance(window, int) or window <= 0):
        raise InputError(f"sliding_window must be a positive integer or null, not {window!r}")
    known = (FULL,) if window is None else (FULL, SLIDING)
    types = raw.get("layer_types") or [
        FULL if window is None or layer < first_windowed else SLIDING for layer in range(count)
    ]
    if not isinstance(types, list) or any(kind not in known for kind in types):
        names = " and ".join(repr(kind) for kind in known)
        raise InputError(f"layer_types other than {names} are not supported")
    if len(types) != count:
        raise InputError(f"{len(types)} layer_types for {count} layers")
    hides = window is not None and window < positions
    return tuple(Layer(rope, window if hides and kind == SLIDING else None) for kind in types)


def dense_parameters(
    c: DecoderConfig, names: Mapping[Role, str], fused: Mapping[Role, str]
) -> tuple[Parameter, ...]:
    """Every tensor of the checkpoint, in forward order. Linear weights are [out, in].

    `names` are the checkpoint's modules by role, `fused` those that hold several, in this order.
    """
    shapes = _shapes(c)

    def parameters(role: Role, layer: int | None = None) -> list[Parameter]:
        module, shape = names[role].format(layer=layer), shapes[role]
        within = f"{fused[role].format(layer=layer)}.weight" if role in fused else None
        found = [Parameter(f"{module}.weight", shape, role, layer, within)]
        if role in c.biased:
            found.append(Parameter(f"{module}.bias", shape[:1], BIASES[role], layer))
        return found

    layer_roles = [role for role in LAYER if role in shapes]
    return (
        *parameters(Role.EMBEDDING),
        *(p for layer in range(c.layers) for role in layer_roles for p in parameters(role, layer)),
        *parameters(Role.FINAL_NORM),
        *(() if c.tied else parameters(Role.HEAD)),
    )


def _shapes(c: DecoderConfig) -> dict[Role, tuple[int, ...]]:
    """The shape of every weight that there is, by role."""
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    wide = {Role.QUERY_NORM: queries, Role.KEY_NORM: keys}
    norms = {
        role: (c.head_dim if norm.per_head else wide.get(role, c.hidden),)
        for role, norm in c.structure.norms.items()
    }
    gate = {Role.GATE: (c.intermediate, c.hidden)} if c.structure.gated else {}
    return {
        Role.EMBEDDING: (c.vocab, c.hidden),
        Role.QUERY: (queries, c.hidden),
        Role.KEY: (keys, c.hidden),
        Role.VALUE: (keys, c.hidden),
        Role.OUTPUT: (c.hidden, queries),
        **gate,
        Role.UP: (c.intermediate, c.hidden),
        Role.DOWN: (c.hidden, c.intermediate),
        **norms,
        Role.HEAD: (c.vocab, c.hidden),
    }
