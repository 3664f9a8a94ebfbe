"""The Granite family (3.x dense): a Llama with four multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import NAMES, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama import llama_biases
from edgeproof.families.llama_cpp import ALL_BIASES, LlamaCppArchitecture
from edgeproof.families.structure import Multipliers, Structure

# Key of config.json → key of llama.cpp's metadata. transformers' class has 1 for each.
SCALES = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
LEAST = 2.0**-126  # it and its inverse are normal numbers of float32


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Granite decoder; logits are divided by `logits_scaling`.

    Raises:
        InputError: as for `read_dense`, or a multiplier that is no positive number of float32.
    """
    dense = read_dense(raw, "granite", biased=llama_biases(raw))
    attention, embedding, residual, logits = (_multiplier(raw, key) for key in SCALES)
    multipliers = Multipliers(attention, embedding, residual, 1 / logits)
    return replace(dense, structure=replace(dense.structure, multipliers=multipliers))


def _multiplier(raw: Mapping[str, Any], key: str) -> float:
    """llama.cpp takes 0 for a key that is not there."""
    value = raw.get(key, 1.0)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not LEAST <= value <= 1 / LEAST:
        raise InputError(f"{key} must be a positive number, not {value!r:.40} (as float32)")
    return float(value)


def keys(config: DecoderConfig) -> dict[str, Any]:
    """The multipliers, as llama.cpp's converter writes them."""
    multipliers = config.structure.multipliers
    return {
        "attention.scale": multipliers.attention,
        "embedding_scale": multipliers.embedding,
        "residual_scale": multipliers.residual,
        "logit_scale": 1 / multipliers.logits,
    }


def as_granite(plain: Structure, stated: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes from the file's keys."""
    multipliers = Multipliers(
        stated["attention.scale"],
        stated["embedding_scale"],
        stated["residual_scale"],
        1 / stated["logit_scale"],
    )
    return replace(plain, multipliers=multipliers)


FAMILY = Family(
    config,
    NAMES,
    LlamaCppArchitecture(
        "granite",
        True,
        ALL_BIASES,
        rope_freqs=True,
        extents=True,
        head_size=False,
        structure=as_granite,
        keys=keys,
    ),
    mlc=None,
    assumed={"bos": 1, "eos": 2},
)
