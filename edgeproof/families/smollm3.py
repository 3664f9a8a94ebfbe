"""The SmolLM3 family: a Llama in which some layers, usually every fourth, do not rotate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import FULL, NAMES, SLIDING, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama import llama_biases
from edgeproof.families.llama_cpp import ALL_BIASES, LlamaCppArchitecture
from edgeproof.families.structure import Structure

INTERVAL = 4  # of llama.cpp's graph, and of transformers where config.json has none
# What transformers' class has where config.json says nothing.
DEFAULTS = {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True}
LISTED, STEP = "no_rope_layers", "no_rope_layer_interval"


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a SmolLM3 decoder.

    Raises:
        InputError: as for `read_dense`, or it cannot be told which layers rotate.
    """
    said = {**DEFAULTS, **raw}
    window = said.get("sliding_window") if said.get("use_sliding_window") else None
    sizes = read_dense({**said, "layer_types": None}, "smollm3")
    rotating = _rotating(said, sizes.layers)
    if window is not None and not said.get("layer_types"):
        said["layer_types"] = [FULL if rotates else SLIDING for rotates in rotating]
    dense = read_dense(said, "smollm3", biased=llama_biases(said), window=window)
    return replace(dense, structure=_with_rotation(dense.structure, rotating))


def _rotating(raw: Mapping[str, Any], layers: int) -> list[bool]:
    """Which layers have a rotary embedding; 0 in the list is one without."""
    listed, step = raw.get(LISTED), raw.get(STEP, INTERVAL)
    if listed is None:
        if type(step) is not int or step <= 0:
            raise InputError(f"{STEP} must be a positive integer, not {step!r}")
        return _every(step, layers)
    if not isinstance(listed, list) or len(listed) < layers or any(x not in (0, 1) for x in listed):
        raise InputError(f"{LISTED} must be a list of 0 and 1, one for each of {layers} layers")
    return [bool(rotates) for rotates in listed[:layers]]


def _every(step: int, layers: int) -> list[bool]:
    return [(layer + 1) % step != 0 for layer in range(layers)]


def _with_rotation(structure: Structure, rotating: list[bool]) -> Structure:
    layers = zip(structure.layers, rotating, strict=True)
    return replace(
        structure,
        layers=tuple(layer if rotates else replace(layer, rope=None) for layer, rotates in layers),
    )


def as_smollm3(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What llama.cpp's graph of that name computes."""
    return _with_rotation(plain, _every(INTERVAL, len(plain.layers)))


FAMILY = Family(
    config,
    NAMES,
    LlamaCppArchitecture(
        "smollm3",
        True,
        ALL_BIASES,
        rope_freqs=False,
        extents=True,
        head_size=False,
        structure=as_smollm3,
    ),
    mlc=None,
    assumed={"bos": 128000, "eos": 128001, "pad": 128004},
)
