"""Mistral models: they are Llama decoders, of which some have a sliding window in all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeproof.families import llama
from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import read_dense

DEFAULT_WINDOW = 4096


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Mistral decoder, whose `layer_types` transformers does not read.

    Raises:
        InputError: as for `read_dense`.
    """
    window = raw.get("sliding_window", DEFAULT_WINDOW)
    plain = {key: value for key, value in raw.items() if key != "layer_types"}
    return read_dense(plain, "llama", required=("num_key_value_heads",), window=window)


FAMILY = replace(llama.FAMILY, config=config)
