"""The shape of a decoder, as far as one can grow to it (see `growth`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GrownShape:
    """What a decoder grows to: channels of the residual stream, of the MLP, layers, and heads."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
