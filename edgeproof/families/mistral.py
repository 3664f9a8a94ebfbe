"""The table of Mistral models whose attention has no window: they are Llama decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import dense_parameters, read_dense

DEFAULT_WINDOW = 4096

parameters = dense_parameters


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Mistral decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    window = raw.get("sliding_window", DEFAULT_WINDOW)
    return read_dense(raw, "llama", required=("num_key_value_heads",), window=window)
