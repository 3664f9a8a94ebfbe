"""The table of the Llama family: biases where config.json says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.families.decoder import DecoderConfig, Role
from edgeproof.families.dense import dense_parameters, read_dense

ATTENTION = frozenset({Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT})
MLP = frozenset({Role.GATE, Role.UP, Role.DOWN})
NONE: frozenset[Role] = frozenset()

parameters = dense_parameters


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Llama decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    attention = ATTENTION if raw.get("attention_bias") else NONE
    mlp = MLP if raw.get("mlp_bias") else NONE
    return read_dense(raw, "llama", biased=attention | mlp)
