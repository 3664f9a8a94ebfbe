"""The dimensions of a decoder, and its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from edgeproof.families.roles import Role
from edgeproof.families.rope import Rope
from edgeproof.families.structure import Structure


@dataclass(frozen=True)
class DecoderConfig:
    """Dimensions and constants of one decoder, as its config.json states them.

    `family` is the name in `FAMILIES` of the family whose decoder this is: a Mistral is a Llama.
    `head_dim`, `kv_heads` are always explicit here; `rope` is the rotary embedding that the config
    states for the whole model, `structure` what each layer does; `tied` says that the head shares
    the embedding's bytes; `biased` are the linear layers with a bias.
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
    rope: Rope
    tied: bool
    biased: frozenset[Role]
    structure: Structure


def no_keys(config: DecoderConfig) -> dict[str, Any]:
    """What a format's file states of a decoder beyond what it states of every one: nothing."""
    return {}


@dataclass(frozen=True)
class Parameter:
    """One tensor of the checkpoint: its Hugging Face name, its shape, what it does and where.

    `within` is the tensor that the checkpoint's file has, where that holds this one's rows and
    those of others; the name is then the one that other families have for it.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    layer: int | None = None
    within: str | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def holder(self) -> str:
        """The tensor of the checkpoint's file that has its values."""
        return self.within or self.name


def rows_held(parameters: Iterable[Parameter]) -> dict[str, slice]:
    """Which rows of its `holder` each parameter is, by name; of one of its own all of them.

    `parameters` are all that a holder holds, in order.
    """
    ends: dict[str, int] = {}
    found = {}
    for parameter in parameters:
        start = ends.get(parameter.holder, 0)
        ends[parameter.holder] = start + parameter.shape[0]
        found[parameter.name] = slice(start, ends[parameter.holder])
    return found


def whole(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """The same with what one tensor holds as one parameter, whose name is the tensor's.

    Its role is that of the first, and it is `within` itself.
    """
    found: dict[str, Parameter] = {}
    for item in parameters:
        first = found.get(item.holder)
        rows = item.shape[0] + (first.shape[0] if first else 0)
        named = first or replace(item, name=item.holder)
        found[item.holder] = replace(named, shape=(rows, *item.shape[1:]))
    return tuple(found.values())
