"""llama.cpp's architectures as transformers' config.json describes them.

Each is what src/models/ of llama.cpp reads under its name; what a key of all of them means is in
`gguf_config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families.dense import FULL, SLIDING
from edgeproof.families.gemma3 import LAYERS_27B, LLAMA_LOCAL, LLAMA_WINDOW, PATTERN, kind_of
from edgeproof.families.structure import Activation
from export.sources.gguf_container import GgufFile
from export.sources.gguf_metadata import Metadata
from export.sources.gguf_rope import long_rope_config, rope_config

Json = dict[str, Any]
LOCAL_THETA = 1e4  # llama.cpp's, where a file has none
LAYERS, WINDOW_PATTERN = "block_count", "attention.sliding_window_pattern"
CAP = "final_logit_softcapping"
GRANITE = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


def _swiglu(meta: Metadata) -> Json:
    return {"hidden_act": Activation.SILU.value}


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: `general.architecture`, and the prefix of its keys.
        transformers: the class that config.json names.
        model_type: of config.json, where it is not `name`.
        rope: `rope_theta` and `rope_scaling` from the file, the prefix and a head's size; raises
            InputError for what no config.json describes.
        head_size: whether config.json has the size of a head also where the file does not state it.
        own: what of config.json not every architecture has, and its activation.
        reads: the keys of `gguf_config.PLAIN` that `own` reads.
    """

    name: str
    transformers: str
    model_type: str | None = None
    head_size: bool = True
    rope: Callable[[GgufFile, str, int], Json] = rope_config
    own: Callable[[Metadata], Json] = _swiglu
    reads: frozenset[str] = frozenset()


def _granite(meta: Metadata) -> Json:
    multipliers = {name: meta.number(f"granite.{key}") for key, name in GRANITE.items()}
    return {**multipliers, **_swiglu(meta)}


def _phi3(meta: Metadata) -> Json:
    """A window of 0 is none."""
    return {"sliding_window": meta.integer(f"phi3.{LLAMA_WINDOW}", 0) or None, **_swiglu(meta)}


def _gemma3(meta: Metadata) -> Json:
    """Without a window all layers are alike."""
    layers, window = meta.integer(f"gemma3.{LAYERS}"), meta.integer(f"gemma3.{LLAMA_WINDOW}", 0)
    kinds = _gemma3_kinds(meta, layers) if window else [FULL] * layers
    cap = meta.number(f"gemma3.{CAP}", 0.0)
    return {
        "hidden_activation": Activation.GELU_TANH.value,
        "query_pre_attn_scalar": _gemma3_scalar(meta, layers),
        "rope_local_base_freq": meta.number(f"gemma3.{LLAMA_LOCAL}", LOCAL_THETA),
        **({"sliding_window": window} if window else {}),
        "layer_types": kinds,
        "final_logit_softcapping": cap or None,
    }


def _gemma3_kinds(meta: Metadata, layers: int) -> list[str]:
    """A file may say it of each layer, or how many make a round, the last of which sees all."""
    key = f"gemma3.{WINDOW_PATTERN}"
    stated = meta.value(key)
    if isinstance(stated, np.ndarray):
        if stated.dtype.kind not in "biu" or len(stated) != layers:
            raise InputError(f"{meta.path}: {key} does not say which of {layers} layers have one")
        return [SLIDING if windowed else FULL for windowed in stated.tolist()]
    pattern = meta.integer(key, PATTERN)
    if pattern < 0:
        raise InputError(f"{meta.path}: {key} = {pattern}; damaged file")
    return [kind_of(layer, pattern) if pattern else SLIDING for layer in range(layers)]


def _gemma3_scalar(meta: Metadata, layers: int) -> int:
    """What scores are divided by the root of: a head's size, in one model the channels per head."""
    heads = max(1, meta.integer("gemma3.attention.head_count"))
    channels = meta.integer("gemma3.embedding_length") // heads
    size = meta.integer("gemma3.attention.key_length", channels)
    return channels if layers == LAYERS_27B else size


ARCHITECTURES = (
    Architecture(
        "gemma3",
        "Gemma3ForCausalLM",
        "gemma3_text",
        own=_gemma3,
        reads=frozenset({LLAMA_WINDOW, CAP}),
    ),
    Architecture(
        "granite",
        "GraniteForCausalLM",
        head_size=False,
        own=_granite,
        reads=frozenset(GRANITE),
    ),
    Architecture("llama", "LlamaForCausalLM"),
    Architecture("olmo2", "Olmo2ForCausalLM", head_size=False),
    Architecture(
        "phi3",
        "Phi3ForCausalLM",
        rope=long_rope_config,
        own=_phi3,
        reads=frozenset({LLAMA_WINDOW}),
    ),
    Architecture("qwen2", "Qwen2ForCausalLM", head_size=False),
    Architecture("qwen3", "Qwen3ForCausalLM"),
    Architecture("smollm3", "SmolLM3ForCausalLM", head_size=False),
)
