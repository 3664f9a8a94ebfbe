"""The Phi-3 family (Phi-3-mini, Phi-3.5-mini, Phi-4-mini): fused projections and long rope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import NAMES, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.long_rope import ORIGINAL, SHARE, attention_factor, read_long_rope
from edgeproof.families.mlc import ROPE_SCALING, MlcArchitecture
from edgeproof.families.roles import Role
from edgeproof.families.rope import LongScaling
from edgeproof.families.structure import Structure

NORM_EPS = 1e-5  # of transformers' class, where config.json has none
PROJECTIONS, GATED = (Role.QUERY, Role.KEY, Role.VALUE), (Role.GATE, Role.UP)
LAYER = "model.layers.{layer}."
FUSED = {
    **dict.fromkeys(PROJECTIONS, f"{LAYER}self_attn.qkv_proj"),
    **dict.fromkeys(GATED, f"{LAYER}mlp.gate_up_proj"),
}
MLC_LAYER = "transformer.h.{layer}."
MLC_NAMES = {
    Role.EMBEDDING: "transformer.embd",
    Role.INPUT_NORM: f"{MLC_LAYER}ln",
    **dict.fromkeys(PROJECTIONS, f"{MLC_LAYER}mixer.qkv_proj"),
    Role.OUTPUT: f"{MLC_LAYER}mixer.out_proj",
    Role.MLP_NORM: f"{MLC_LAYER}post_attention_layernorm",
    **dict.fromkeys(GATED, f"{MLC_LAYER}mlp.gate_up_proj"),
    Role.DOWN: f"{MLC_LAYER}mlp.down_proj",
    Role.FINAL_NORM: "transformer.norm",
}
LONGEST = "max_position_embeddings"


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Phi-3 decoder.

    Raises:
        InputError: as for `read_dense` and `read_long_rope`.
    """
    said = {"rms_norm_eps": NORM_EPS, **raw, "layer_types": None}
    return read_dense(said, "phi3", window=raw.get("sliding_window"), rope=read_long_rope(raw))


def keys(config: DecoderConfig) -> dict[str, Any]:
    """What llama.cpp's converter writes for this family only.

    A window of 0 is none: its graph has none in any case.
    """
    scaling = config.rope.scaling
    stated: dict[str, Any] = {
        "rope.scaling.original_context_length": config.max_positions,
        "rope.dimension_count": config.rope.rotated(config.head_dim),
        "attention.sliding_window": config.structure.layers[0].window or 0,
    }
    if isinstance(scaling, LongScaling):
        stated["rope.scaling.original_context_length"] = scaling.original_positions
        stated["rope.scaling.attn_factor"] = scaling.attention
    return stated


def mlc_keys(config: DecoderConfig) -> dict[str, Any]:
    """What MLC's model definition asks beyond Llama's."""
    scaling, longest = config.rope.scaling, config.max_positions
    stated: dict[str, Any] = {
        "model_type": "phi3",
        SHARE: config.rope.share,
        LONGEST: longest,
        ORIGINAL: longest,
    }
    if isinstance(scaling, LongScaling):
        original = scaling.original_positions
        positions = {LONGEST: round(scaling.factor * original), ORIGINAL: original}
        factors = {"short_factor": [*scaling.short], "long_factor": [*scaling.long]}
        kinds = {"type": scaling.kind, "rope_type": scaling.kind}
        stated |= {**positions, ROPE_SCALING: {**kinds, **factors, **positions}}
    return stated


def as_mlc_phi3(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What MLC's model definition computes, for texts of at most the original positions."""
    scaling, share = keys.get(ROPE_SCALING), float(keys[SHARE])
    read = None
    if scaling and "type" in scaling:
        original = int(keys[ORIGINAL])
        factor = keys[LONGEST] / original
        short, long = (tuple(scaling[key]) for key in ("short_factor", "long_factor"))
        read = LongScaling(factor, original, short, long, attention_factor(factor, original))
    layers = tuple(
        replace(layer, rope=layer.rope and replace(layer.rope, scaling=read, share=share))
        for layer in plain.layers
    )
    return replace(plain, layers=layers)


FAMILY = Family(
    config,
    NAMES,
    LlamaCppArchitecture(
        "phi3",
        False,
        frozenset(),
        rope_freqs=False,
        extents=False,
        square=True,
        long_rope=True,
        lacks=frozenset({"attention.key_length", "attention.value_length"}),
        keys=keys,
    ),
    MlcArchitecture(
        "phi3",
        as_mlc_phi3,
        mlc_keys,
        names=MLC_NAMES,
        lacks=frozenset({"pipeline_parallel_stages", "disaggregation"}),
        square=True,
    ),
    {"bos": 1, "eos": 32000, "pad": 32000},
    FUSED,
    called="phi",  # llama.cpp takes a name with "phi3" for that model's own vocabulary
)
