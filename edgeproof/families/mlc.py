"""MLC's model definitions: what one computes from the config in an artifact, and its names.

Source: mlc_llm, `model/*/*_model.py` (config classes and modules) and `model/*/*_loader.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import DecoderConfig, no_keys
from edgeproof.families.roles import BIASES, Role
from edgeproof.families.rope import Llama3Scaling, RopeScaling, read_scaling
from edgeproof.families.structure import Activation, Structure, as_llama

THETA, ROPE_SCALING = "position_embedding_base", "rope_scaling"
ATTENTION_INPUTS, MLP_INPUTS = (Role.QUERY, Role.KEY, Role.VALUE), (Role.GATE, Role.UP)
# Activations that definitions with a `hidden_act` know under transformers' name.
ACTIVATIONS = {"silu": Activation.SILU}
NO_BIASES: frozenset[Role] = frozenset()


def no_biases(keys: Mapping[str, Any]) -> frozenset[Role]:
    """No linear layer has one."""
    return NO_BIASES


@dataclass(frozen=True)
class MlcArchitecture:
    """One model definition.

    Attributes:
        name: `model_type` of mlc-chat-config.json.
        structure: what it computes, from what Llama's would and from `model_config`, which may ask
            for what it has not (InputError), lack keys (KeyError) or have bad values (TypeError,
            ValueError).
        keys: what `model_config` has beyond the keys that every model has.
        names: its modules by role, where they are not the checkpoint's own.
        biases: the linear layers with a bias, from `model_config`; of fused ones all or none.
        attention: the layer that queries, keys and values are fused into.
        theta: the key of the rotary base.
        lacks: keys of `model_config` that Llama's has and this one has not.
        square: whether all heads together must be as wide as the residual stream.
    """

    name: str
    structure: Callable[[Structure, Mapping[str, Any]], Structure] = as_llama
    keys: Callable[[DecoderConfig], dict[str, Any]] = no_keys
    biases: Callable[[Mapping[str, Any]], frozenset[Role]] = no_biases
    attention: str = "qkv_proj"
    theta: str = THETA
    lacks: frozenset[str] = frozenset()
    square: bool = False
    names: Mapping[Role, str] = field(default_factory=dict)

    def modules(self, names: Mapping[Role, str], structure: Structure) -> dict[Role, str]:
        """The modules in MLC by role, of biases too: `names`, the checkpoint's, or what is fused.

        Of linear layers that share their input, the first role's rows are on top.
        """
        modules = {**names, **self.names}
        fused: dict[str, tuple[Role, ...]] = {self.attention: ATTENTION_INPUTS}
        if structure.gated:
            fused["gate_up_proj"] = MLP_INPUTS
        for module, roles in fused.items():
            modules |= {role: f"{modules[role].rpartition('.')[0]}.{module}" for role in roles}
        return modules | {bias: modules[role] for role, bias in BIASES.items() if role in modules}


def scaled(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """With the `rope_scaling` of `model_config`, of which MLC reads what has a `rope_type`.

    Raises:
        InputError: a scaling that MLC has not, or one without its numbers.
    """
    scaling = keys.get(ROPE_SCALING)
    if not scaling or "rope_type" not in scaling:
        return plain
    read = read_scaling(scaling)
    if not isinstance(read, Llama3Scaling):
        raise InputError(f"rope scaling of type {scaling['rope_type']!r} is not supported by MLC")
    layers = tuple(
        replace(layer, rope=layer.rope and replace(layer.rope, scaling=read))
        for layer in plain.layers
    )
    return replace(plain, layers=layers)


def activated(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    """With the `hidden_act` of `model_config`.

    Raises:
        InputError: one that is not known here.
    """
    name = keys["hidden_act"]
    if name not in ACTIVATIONS:
        raise InputError(f"hidden_act {name!r} is not supported by MLC's definition of this model")
    return replace(plain, activation=ACTIVATIONS[name])


def hidden_act(config: DecoderConfig) -> dict[str, Any]:
    """What definitions that choose an activation ask beyond Llama's."""
    return {"hidden_act": config.structure.activation.value}


def rope_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """What `rope_scaling` of `model_config` says; None of a scaling that MLC has not."""
    if not isinstance(scaling, Llama3Scaling):
        return None
    return {
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_positions,
    }
