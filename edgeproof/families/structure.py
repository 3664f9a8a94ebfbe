"""What a decoder computes, as data: norms, activation, multipliers, and what differs by layer.

Graphs are built from a `Structure`. What a runtime's own architecture computes is stated as one
too, so that a model is refused where the two differ, and `differences` says in what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from edgeproof.families.roles import Role
from edgeproof.families.rope import Rope


class Activation(Enum):
    """The function inside the MLP, by its name in config.json."""

    SILU = "silu"
    GELU_TANH = "gelu_pytorch_tanh"


@dataclass(frozen=True)
class Norm:
    """RMSNorm: x / √(mean x² + ε) × (offset + weight), where `offset` is 0 or, in Gemma, 1.

    A norm of queries or keys is `per_head`, or over the channels of all heads together.
    """

    offset: float = 0.0
    per_head: bool = False


@dataclass(frozen=True)
class Multipliers:
    """Constants that values are multiplied with.

    Attributes:
        attention: scores, before softmax.
        embedding: the embedding's rows.
        residual: what attention and MLP give, before it is added to the residual stream.
        logits: the logits.
    """

    attention: float
    embedding: float = 1.0
    residual: float = 1.0
    logits: float = 1.0


@dataclass(frozen=True)
class Layer:
    """What may differ between layers.

    `rope` is None in a layer that does not rotate queries and keys. In a layer with a `window` a
    token sees that many positions, its own included; None: all before it.
    """

    rope: Rope | None
    window: int | None = None


PRE_NORMS: Mapping[Role, Norm] = {
    Role.INPUT_NORM: Norm(),
    Role.MLP_NORM: Norm(),
    Role.FINAL_NORM: Norm(),
}


@dataclass(frozen=True)
class Structure:
    """What a decoder computes; its sizes are in `DecoderConfig`.

    Each layer adds to the residual stream first what attention makes of it, then the MLP. `norms`
    has the norms that there are, by role. The MLP is down(f(gate(x)) × up(x)), or without a gate
    down(f(up(x))). `softcap` is c in c × tanh(logits / c).
    """

    layers: tuple[Layer, ...]
    multipliers: Multipliers
    norms: Mapping[Role, Norm] = field(default_factory=lambda: PRE_NORMS)
    activation: Activation = Activation.SILU
    gated: bool = True
    softcap: float | None = None

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """The different rotary embeddings, in the order in which layers first have them."""
        return tuple(dict.fromkeys(layer.rope for layer in self.layers))

    def without_limits(self) -> Structure:
        """The same with nothing capped, and every token seeing all before it."""
        layers = tuple(replace(layer, window=None) for layer in self.layers)
        return replace(self, layers=layers, softcap=None)


def plain_structure(layers: int, head_dim: int, rope: Rope) -> Structure:
    """A Llama's: norms before attention and MLP, SwiGLU, every layer alike."""
    return Structure((Layer(rope),) * layers, Multipliers(attention=head_dim**-0.5))


def as_llama(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """What a runtime's Llama computes, whatever a file states beyond its sizes: `plain`."""
    return plain


HEAD_NORMS = (Role.QUERY_NORM, Role.KEY_NORM)
NORM_NAMES = {
    Role.INPUT_NORM: "norm before attention",
    Role.ATTENTION_OUT_NORM: "norm after attention",
    Role.MLP_NORM: "norm before the MLP",
    Role.MLP_OUT_NORM: "norm after the MLP",
    Role.QUERY_NORM: "norm of queries",
    Role.KEY_NORM: "norm of keys",
    Role.FINAL_NORM: "norm before the head",
}


def differences(model: Structure, runtime: Structure) -> Iterator[str]:
    """What a model has and a runtime does not compute, each in a few words.

    A norm's offset is no difference: it can be added to the weights that are stored.
    """
    for role, name in NORM_NAMES.items():
        ours, theirs = model.norms.get(role), runtime.norms.get(role)
        if ours is None and theirs is not None:
            yield f"no {name}"
        elif ours is not None and (theirs is None or ours.per_head != theirs.per_head):
            yield f"a {name}{_extent(ours) if role in HEAD_NORMS else ''}"
    if model.activation is not runtime.activation:
        yield f"activation {model.activation.value!r}"
    if model.gated is not runtime.gated:
        yield f"an MLP {'with' if model.gated else 'without'} a gate"
    for name, value in vars(model.multipliers).items():
        if value != getattr(runtime.multipliers, name):
            yield f"{name} multiplier {value:g}"
    if model.softcap != runtime.softcap:
        yield f"a soft cap of {model.softcap} on logits"
    for number, (our, their) in enumerate(zip(model.layers, runtime.layers, strict=True)):
        yield from _layer_differences(number, our, their)


def _extent(norm: Norm) -> str:
    return ", head by head" if norm.per_head else " over all heads together"


def _layer_differences(number: int, model: Layer, runtime: Layer) -> Iterator[str]:
    if model.window != runtime.window:
        yield f"a sliding window of {model.window} positions (layer {number})"
    if (model.rope is None) is not (runtime.rope is None):
        yield f"{'no ' if model.rope is None else ''}rotary embedding in layer {number}"
    elif model.rope and runtime.rope:
        if model.rope.theta != runtime.rope.theta:
            yield f"rope_theta {model.rope.theta:g} in layer {number}"
        if model.rope.scaling != runtime.rope.scaling:
            yield "rope scaling"
        if model.rope.share != runtime.rope.share:
            yield f"rotation of {model.rope.share:g} of the channels in layer {number}"
