"""What a Hugging Face folder says of its model in config.json: facts that exports state again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, read_config
from edgeproof.families.context import bounded, in_llama_cpp
from runtimes.rotary import RotaryTable, amplitude_of, frequencies, rotated_channels, theta_of
from runtimes.said import said_of
from runtimes.weights.fused import Heads

Facts = Mapping[str, Any]  # name of the fact → value
# (key in an artifact, what it says, the name of the fact that this is)
Statement = tuple[str, Any, str]
# The fact of a key that changes what is computed and that nothing in a checkpoint could explain.
UNEXPLAINED = "unexplained"
NO_WINDOW = -1
WINDOW_OF = "sliding_window."  # before a layer's number: that layer's

# Facts that have the name of their key in config.json.
SAME_NAME = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
END = "eos_token_id"


def facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a Hugging Face config states; transformers 5 nests those of the rope."""
    heads, decoder = Heads.of(config), decoder_of(config)
    scale = decoder.structure.multipliers.attention if decoder else heads.size**-0.5
    positions = config.get("max_position_embeddings")
    alike = decoder is None or decoder.structure.ropes == (decoder.rope,)
    facts = {
        **{name: config[name] for name in SAME_NAME if name in config},
        "num_attention_heads": heads.query,
        "num_key_value_heads": heads.kv,
        "head_dim": heads.size,
        "attention_scale": scale,
        # A fact is one of all layers: where these rotate differently, there is none.
        "rotary": 1 if alike else None,
        "interleaved": 0,
        "sliding_window": sliding_window(config),
        "softcap": config.get("attn_logit_softcapping") or 0.0,
        "max_position_embeddings": positions,
        "context": positions,
        "windowed_context": positions,
        "llama_cpp_context": positions,
        "model_type": config.get("model_type"),
        "rope_theta": theta_of(config),
        "rotary_dim": rotated_channels(config, heads.size),
    }
    facts |= _windows(decoder)
    if decoder is not None:
        facts |= {
            "context": bounded(decoder).max_positions,
            "windowed_context": bounded(decoder, windows=True).max_positions,
            "llama_cpp_context": in_llama_cpp(decoder).max_positions,
        }
    rotated, positions = frequencies(config, heads.size), facts["windowed_context"]
    if alike and rotated is not None and positions is not None:
        size = amplitude_of(config)
        facts["rotary_cosine"] = RotaryTable(rotated, positions, np.cos, size)
        facts["rotary_sine"] = RotaryTable(rotated, positions, np.sin, size)
    return {name: value for name, value in facts.items() if value is not None}


def decoder_of(config: Mapping[str, Any]) -> DecoderConfig | None:
    """The decoder that a config describes; None where no family here reads it."""
    try:
        return read_config(config)[0]
    except InputError:
        return None


def sliding_window(config: Mapping[str, Any]) -> int:
    """How many positions attention reaches back; NO_WINDOW where that is the whole context."""
    window = config.get("sliding_window")
    if window is None or config.get("use_sliding_window") is False:
        return NO_WINDOW
    return NO_WINDOW if window >= config.get("max_position_embeddings", 0) else int(window)


def _windows(decoder: DecoderConfig | None) -> dict[str, int]:
    """Of each layer, where any has a window."""
    if decoder is None:
        return {}
    windows = [_hiding(layer.window, decoder.max_positions) for layer in decoder.structure.layers]
    hiding = set(windows) != {NO_WINDOW}
    return {f"{WINDOW_OF}{layer}": size for layer, size in enumerate(windows) if hiding}


def _hiding(window: int | None, positions: int) -> int:
    return NO_WINDOW if window is None or window >= positions else window


def end_tokens(folder: Path) -> frozenset[int]:
    """What ends a reply, of the vocabulary: see `edgeproof.checkpoints.special_tokens`.

    Raises:
        InputError: a file cannot be read, or says no token's number.
    """
    said = said_of(folder)
    return frozenset(said.stops(int(said.config["vocab_size"])))
