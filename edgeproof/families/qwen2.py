"""The table of the Qwen2 family: queries, keys and values have biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.families.decoder import DecoderConfig, Role
from edgeproof.families.dense import dense_parameters, read_dense

BIASED = frozenset({Role.QUERY, Role.KEY, Role.VALUE})
DEFAULT_WINDOW = 4096

parameters = dense_parameters


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Qwen2 decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    return read_dense(
        raw, "qwen2", required=("num_key_value_heads",), biased=BIASED, window=window(raw)
    )


def window(raw: Mapping[str, Any]) -> Any:
    """How many positions a token sees; None for all before it."""
    return raw.get("sliding_window", DEFAULT_WINDOW) if raw.get("use_sliding_window") else None
