"""What mlx_lm's models compute from the config that is written here, by `model_type`.

A checkpoint whose decoder is another is refused, since mlx_lm would ignore what it does not know.
Source: https://github.com/ml-explore/mlx-lm, mlx_lm/models/ (llama.py, which Mistral is too,
qwen2.py, qwen3.py, olmo2.py, granite.py, smollm3.py; rope_utils.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Role
from edgeproof.families.olmo2 import with_norms
from edgeproof.families.qwen3 import with_head_norms
from edgeproof.families.rope import LinearScaling, Llama3Scaling
from edgeproof.families.structure import Multipliers, Structure, differences, plain_structure

ATTENTION = frozenset({Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT})
MLP = frozenset({Role.GATE, Role.UP, Role.DOWN})
INPUTS = frozenset({Role.QUERY, Role.KEY, Role.VALUE})
NONE: frozenset[Role] = frozenset()
ANY = (NONE, ATTENTION, MLP, ATTENTION | MLP)
SCALINGS = (type(None), LinearScaling, Llama3Scaling)
# Key of config.json → the multiplier that it is; mlx_lm asks for all of them.
GRANITE = ("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling")
LISTED = "no_rope_layers"

Keys = dict[str, Any]


def _no_keys(config: DecoderConfig, raw: Mapping[str, Any]) -> Keys:
    return {}


def _plain(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    return plain


@dataclass(frozen=True)
class Definition:
    """One model of mlx_lm.

    Attributes:
        biases: the sets of linear layers that may have one.
        keys: what config.json has to say beyond what every model's says, from ours and the
            checkpoint's.
        structure: what it computes, from what a Llama would and from these keys.
        square: whether heads are as wide together as the residual stream, whatever is said.
    """

    biases: tuple[frozenset[Role], ...]
    keys: Callable[[DecoderConfig, Mapping[str, Any]], Keys] = _no_keys
    structure: Callable[[Structure, Mapping[str, Any]], Structure] = _plain
    square: bool = False


def _granite_keys(config: DecoderConfig, raw: Mapping[str, Any]) -> Keys:
    return {key: raw.get(key, 1.0) for key in GRANITE}


def _as_granite(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    attention, embedding, residual, logits = (float(keys[key]) for key in GRANITE)
    return replace(plain, multipliers=Multipliers(attention, embedding, residual, 1 / logits))


def _smollm3_keys(config: DecoderConfig, raw: Mapping[str, Any]) -> Keys:
    return {LISTED: [int(layer.rope is not None) for layer in config.structure.layers]}


def _as_smollm3(plain: Structure, keys: Mapping[str, Any]) -> Structure:
    layers = zip(plain.layers, keys[LISTED], strict=True)
    return replace(
        plain,
        layers=tuple(layer if rotates else replace(layer, rope=None) for layer, rotates in layers),
    )


LLAMA = Definition(ANY)
DEFINITIONS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Definition((INPUTS,), square=True),
    "qwen3": Definition((NONE,), structure=lambda plain, keys: with_head_norms(plain)),
    "olmo2": Definition((NONE, ATTENTION), structure=lambda plain, keys: with_norms(plain)),
    "granite": Definition(ANY, _granite_keys, _as_granite, square=True),
    "smollm3": Definition(ANY, _smollm3_keys, _as_smollm3),
}


def stated_keys(config: DecoderConfig, raw: Mapping[str, Any]) -> Keys:
    """What config.json has to say for mlx_lm to compute the decoder, whatever `raw` leaves out.

    Raises:
        InputError: mlx_lm's model does not compute it; the message names the first feature.
    """
    name = raw["model_type"]
    if name not in DEFINITIONS:
        known = ", ".join(DEFINITIONS)
        raise _unsupported(f"architecture {name!r}", f" (known are {known})")
    definition = DEFINITIONS[name]
    keys = {**_common(config), **definition.keys(config, raw)}
    if config.biased not in definition.biases:
        raise _unsupported("biases of linear layers")
    if definition.square and config.heads * config.head_dim != config.hidden:
        raise _unsupported(
            f"{config.heads} heads of {config.head_dim} beside {config.hidden} channels"
        )
    if not isinstance(config.rope.scaling, SCALINGS) or config.rope.share != 1:
        raise _unsupported("rope scaling")
    plain = plain_structure(config.layers, config.head_dim, config.rope)
    for difference in differences(config.structure, definition.structure(plain, keys)):
        raise _unsupported(difference)
    return keys


def _common(config: DecoderConfig) -> Keys:
    """What mlx_lm's Llama would assume otherwise.

    transformers 5 says the rope's base and scaling in `rope_parameters`, which it does not read.
    """
    theta = config.rope.theta
    return {
        "head_dim": config.head_dim,
        "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": int(theta) if theta % 1 == 0 else theta,
        "rope_scaling": _scaling(config),
        "tie_word_embeddings": config.tied,
        "attention_bias": Role.OUTPUT in config.biased,
        "mlp_bias": Role.DOWN in config.biased,
    }


def _scaling(config: DecoderConfig) -> Keys | None:
    scaling = config.rope.scaling
    if isinstance(scaling, Llama3Scaling):
        return {
            "rope_type": scaling.kind,
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_positions,
        }
    return None if scaling is None else {"rope_type": scaling.kind, "factor": scaling.factor}


def _unsupported(feature: str, more: str = "") -> InputError:
    return InputError(
        f"MLX: {feature} is not supported yet{more}; export this model to GGUF or ONNX instead"
    )
