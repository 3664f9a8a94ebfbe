"""The dimensions of a Llama-family decoder and the parameters that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from edgeproof.families.rope import RopeScaling


class Role(Enum):
    """What a parameter does. Formats map roles, never name patterns."""

    EMBEDDING = "embedding"
    INPUT_NORM = "input_norm"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    POST_NORM = "post_norm"
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    FINAL_NORM = "final_norm"
    HEAD = "head"
    QUERY_BIAS = "query_bias"
    KEY_BIAS = "key_bias"
    VALUE_BIAS = "value_bias"
    OUTPUT_BIAS = "output_bias"
    GATE_BIAS = "gate_bias"
    UP_BIAS = "up_bias"
    DOWN_BIAS = "down_bias"
    QUERY_NORM = "query_norm"
    KEY_NORM = "key_norm"


# Linear layer → the role of its bias, where it has one.
BIASES = {
    Role.QUERY: Role.QUERY_BIAS,
    Role.KEY: Role.KEY_BIAS,
    Role.VALUE: Role.VALUE_BIAS,
    Role.OUTPUT: Role.OUTPUT_BIAS,
    Role.GATE: Role.GATE_BIAS,
    Role.UP: Role.UP_BIAS,
    Role.DOWN: Role.DOWN_BIAS,
}


@dataclass(frozen=True)
class DecoderConfig:
    """Dimensions and constants of one decoder, as its config.json states them.

    `head_dim`, `num_kv_heads` are always explicit here; `rope_theta` is the rotary base, before
    `rope_scaling`; `tied` says that the head shares the embedding's bytes; `biased` are the linear
    layers with a bias.
    """

    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tied: bool
    biased: frozenset[Role]


@dataclass(frozen=True)
class Parameter:
    """One tensor of the checkpoint: its Hugging Face name, its shape, what it does and where."""

    name: str
    shape: tuple[int, ...]
    role: Role
    layer: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)
