"""The Gemma 3 family, text only: norms on both sides of attention and MLP, windows, two rotations.

Most layers see a window only, and rotate by a base of their own. Every norm multiplies with
1 + weight, the embedding's rows are multiplied with √channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import FULL, NAMES, SLIDING, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama import ATTENTION, NONE
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.roles import Role
from edgeproof.families.rope import Rope, read_rope
from edgeproof.families.structure import Activation, Layer, Multipliers, Norm, Structure

# What transformers' class has where config.json says nothing.
DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}
WINDOW, SCALAR, PATTERN = 4096, 256, 6
THETAS = {FULL: 1e6, SLIDING: 1e4}
OLD_THETAS = {FULL: "rope_theta", SLIDING: "rope_local_base_freq"}
NORM, HEAD_NORM = Norm(offset=1.0), Norm(offset=1.0, per_head=True)
NORMS = {
    **dict.fromkeys((Role.INPUT_NORM, Role.ATTENTION_OUT_NORM, Role.MLP_NORM), NORM),
    **dict.fromkeys((Role.MLP_OUT_NORM, Role.FINAL_NORM), NORM),
    **dict.fromkeys((Role.QUERY_NORM, Role.KEY_NORM), HEAD_NORM),
}
LAYER = "model.layers.{layer}."
OWN_NAMES = {
    Role.ATTENTION_OUT_NORM: f"{LAYER}post_attention_layernorm",
    Role.MLP_NORM: f"{LAYER}pre_feedforward_layernorm",
    Role.MLP_OUT_NORM: f"{LAYER}post_feedforward_layernorm",
}
# Keys of llama.cpp's metadata.
LLAMA_WINDOW, LLAMA_LOCAL = "attention.sliding_window", "rope.freq_base_swa"
# llama.cpp knows the model of 27 billion weights by its layers: it scales scores otherwise.
LAYERS_27B = 62


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Gemma 3 text decoder.

    Raises:
        InputError: as for `read_dense`, or something that only Gemma 3's other models have.
    """
    said = {**DEFAULTS, **{key: value for key, value in raw.items() if value is not None}}
    activation = said.get("hidden_activation", Activation.GELU_TANH.value)
    pattern = _positive(said, "sliding_window_pattern", PATTERN)
    for key in ("use_bidirectional_attention", "attn_logit_softcapping"):
        if said.get(key):
            raise InputError(f"{key} = {said[key]!r} is not supported")
    count = said["num_hidden_layers"]
    if not said.get("layer_types") and type(count) is int and 0 < count < 10_000:
        said["layer_types"] = [kind_of(layer, pattern) for layer in range(count)]
    ropes = {kind: _rope(said, kind) for kind in THETAS}
    plain = {key: value for key, value in said.items() if key not in ("rope_scaling",)}
    dense = read_dense(
        {**plain, "hidden_act": activation, "rope_parameters": None},
        "gemma3_text",
        biased=ATTENTION if said.get("attention_bias") else NONE,
        window=_positive(said, "sliding_window", WINDOW),
    )
    window = min(_positive(said, "sliding_window", WINDOW), dense.max_positions)
    scalar = _positive(said, "query_pre_attn_scalar", SCALAR)
    layers = tuple(
        Layer(ropes[kind], window if kind == SLIDING else None) for kind in said["layer_types"]
    )
    structure = replace(
        dense.structure,
        layers=layers,
        norms=NORMS,
        multipliers=Multipliers(attention=scalar**-0.5, embedding=dense.hidden**0.5),
        softcap=said.get("final_logit_softcapping"),
    )
    return replace(dense, rope=ropes[FULL], structure=structure)


def kind_of(layer: int, pattern: int) -> str:
    """Every `pattern`-th layer sees all before it."""
    return FULL if (layer + 1) % pattern == 0 else SLIDING


def _positive(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key, default)
    if type(value) is not int or not 0 < value < 2**31:
        raise InputError(f"{key} must be a positive integer, not {value!r}")
    return value


def _rope(raw: Mapping[str, Any], kind: str) -> Rope:
    """The rotation of layers of that kind.

    Source: transformers' `Gemma3TextConfig.convert_rope_params_to_dict`: `rope_parameters` has both
    kinds; before transformers 5 the scaling was of the layers that see all.
    """
    both = raw.get("rope_parameters") or {}
    if not isinstance(both, Mapping) or not set(both) <= set(THETAS):
        raise InputError(
            "rope_parameters must have those of full_attention and of sliding_attention"
        )
    old = raw.get("rope_scaling") if kind == FULL else None
    own, scaling = both.get(kind) or {}, old or {}
    if not isinstance(own, Mapping) or not isinstance(scaling, Mapping):
        raise InputError("rope parameters must be objects")
    theta = raw.get(OLD_THETAS[kind], THETAS[kind])
    return read_rope({"rope_parameters": {"rope_theta": theta, **own, **scaling}})


def keys(config: DecoderConfig) -> dict[str, Any]:
    """The window and the base of the layers that have one, as llama.cpp's converter writes them."""
    for layer in config.structure.layers:
        if layer.window is not None and layer.rope is not None:
            return {LLAMA_LOCAL: layer.rope.theta, LLAMA_WINDOW: layer.window}
    return {}


def as_gemma3(plain: Structure, stated: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes; without a window all layers are alike."""
    window, hidden = stated.get(LLAMA_WINDOW), stated["embedding_length"]
    multipliers = replace(plain.multipliers, embedding=hidden**0.5)
    if len(plain.layers) == LAYERS_27B:
        multipliers = replace(
            multipliers, attention=(hidden / stated["attention.head_count"]) ** -0.5
        )
    layers = plain.layers
    if window is not None:
        local = Layer(Rope(stated[LLAMA_LOCAL]), window)
        layers = tuple(
            local if kind_of(number, PATTERN) == SLIDING else layer
            for number, layer in enumerate(plain.layers)
        )
    return replace(
        plain,
        layers=layers,
        multipliers=multipliers,
        norms=NORMS,
        activation=Activation.GELU_TANH,
    )


FAMILY = Family(
    config,
    {**NAMES, **OWN_NAMES},
    LlamaCppArchitecture(
        "gemma3",
        False,
        frozenset(),
        rope_freqs=False,
        extents=False,
        structure=as_gemma3,
        keys=keys,
    ),
    mlc=None,
    # mlc_llm, gemma3_model.py (July 2026): the KV cache has one rope_theta, and rope_scale 1.
    mlc_differs="its gemma3 rotates every layer by the same base, this model those with a window by"
    " another",
    assumed={"bos": 2, "eos": 1, "pad": 0},
)
