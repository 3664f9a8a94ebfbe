"""The Qwen3 family: queries and keys are normalised, head by head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import NAMES, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama import ATTENTION, NONE
from edgeproof.families.llama_cpp import INPUT_BIASES, LlamaCppArchitecture
from edgeproof.families.mlc import MlcArchitecture, activated, hidden_act
from edgeproof.families.qwen2 import MLC_LACKS, windows
from edgeproof.families.roles import Role
from edgeproof.families.structure import Norm, Structure

HEAD_NORMS = {Role.QUERY_NORM: Norm(per_head=True), Role.KEY_NORM: Norm(per_head=True)}


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Qwen3 decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    window, first = windows(raw)
    dense = read_dense(
        raw,
        "qwen3",
        required=("num_key_value_heads", "head_dim"),
        biased=ATTENTION if raw.get("attention_bias") else NONE,
        window=window,
        first_windowed=first,
    )
    return replace(dense, structure=with_head_norms(dense.structure))


def with_head_norms(structure: Structure) -> Structure:
    """The structure with norms of queries and keys."""
    return replace(structure, norms={**structure.norms, **HEAD_NORMS})


def as_qwen3(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes."""
    return with_head_norms(plain)


def as_mlc_qwen3(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What MLC's model definition computes."""
    return with_head_norms(activated(plain, keys))


def mlc_biases(keys: Mapping[str, Any]) -> frozenset[Role]:
    """Of all attention's layers, or none."""
    return ATTENTION if keys["attention_bias"] else NONE


def mlc_qwen3_keys(config: DecoderConfig) -> dict[str, Any]:
    """What MLC's model definition asks beyond Llama's."""
    return {**hidden_act(config), "attention_bias": Role.OUTPUT in config.biased}


FAMILY = Family(
    config,
    NAMES,
    LlamaCppArchitecture(
        "qwen3", False, INPUT_BIASES, rope_freqs=False, extents=False, structure=as_qwen3
    ),
    MlcArchitecture(
        "qwen3",
        as_mlc_qwen3,
        mlc_qwen3_keys,
        biases=mlc_biases,
        attention="c_attn",
        theta="rope_theta",
        lacks=MLC_LACKS,
    ),
)
