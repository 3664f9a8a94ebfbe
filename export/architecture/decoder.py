"""The dimensions of a Llama-family decoder and the parameters that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


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


@dataclass(frozen=True)
class DecoderConfig:
    """Dimensions and constants of one decoder, as its config.json states them.

    `head_dim`, `num_kv_heads` are always explicit here; `rope_theta` is the rotary base;
    `tied` says that the head shares the embedding's bytes.
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
    tied: bool


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
