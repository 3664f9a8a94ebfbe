"""The OLMo 2 family: norms after attention and MLP, and of queries and keys over all heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import NAMES, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama import ATTENTION, NONE
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.mlc import MlcArchitecture, activated, hidden_act, scaled
from edgeproof.families.roles import Role
from edgeproof.families.structure import Norm, Structure

NORM_EPS = 1e-5  # of transformers' class, where config.json has none
NORMS = dict.fromkeys(
    (
        Role.ATTENTION_OUT_NORM,
        Role.MLP_OUT_NORM,
        Role.QUERY_NORM,
        Role.KEY_NORM,
        Role.FINAL_NORM,
    ),
    Norm(),
)
LAYER = "model.layers.{layer}."
OWN_NAMES = {
    Role.ATTENTION_OUT_NORM: f"{LAYER}post_attention_layernorm",
    Role.MLP_OUT_NORM: f"{LAYER}post_feedforward_layernorm",
}
BEFORE = (Role.INPUT_NORM, Role.MLP_NORM)


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of an OLMo 2 decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    biased = ATTENTION if raw.get("attention_bias") else NONE
    dense = read_dense({"rms_norm_eps": NORM_EPS, **raw}, "olmo2", biased=biased)
    return replace(dense, structure=with_norms(dense.structure))


def with_norms(structure: Structure) -> Structure:
    """The structure with OLMo 2's norms instead of Llama's."""
    return replace(structure, norms=NORMS)


def as_olmo2(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes."""
    return with_norms(plain)


def as_mlc_olmo2(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What MLC's model definition computes."""
    return with_norms(scaled(activated(plain, keys), keys))


FAMILY = Family(
    config,
    {**{role: name for role, name in NAMES.items() if role not in BEFORE}, **OWN_NAMES},
    LlamaCppArchitecture(
        "olmo2",
        False,
        frozenset(),
        rope_freqs=False,
        extents=False,
        tied=False,
        square=True,
        head_size=False,
        structure=as_olmo2,
    ),
    MlcArchitecture("olmo2", as_mlc_olmo2, hidden_act, lacks=frozenset({"disaggregation"})),
    {"eos": 50279, "pad": 1},
)
