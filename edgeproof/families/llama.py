"""The Llama family: biases where config.json says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import NAMES, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama_cpp import ALL_BIASES, LlamaCppArchitecture
from edgeproof.families.mlc import MlcArchitecture, scaled
from edgeproof.families.roles import Role

ATTENTION = frozenset({Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT})
MLP = frozenset({Role.GATE, Role.UP, Role.DOWN})
NONE: frozenset[Role] = frozenset()


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Llama decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    return read_dense(raw, "llama", biased=llama_biases(raw))


def llama_biases(raw: Mapping[str, Any]) -> frozenset[Role]:
    """The linear layers with a bias, by `attention_bias` and `mlp_bias` of config.json."""
    attention = ATTENTION if raw.get("attention_bias") else NONE
    return attention | (MLP if raw.get("mlp_bias") else NONE)


FAMILY = Family(
    config,
    NAMES,
    LlamaCppArchitecture("llama", True, ALL_BIASES, rope_freqs=True, extents=True),
    MlcArchitecture("llama", scaled),
    {"bos": 1, "eos": 2},
)
