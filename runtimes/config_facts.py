"""What a Hugging Face folder says of its model in config.json: facts that exports state again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.artifact.json_file import read_json
from runtimes.weights.fused import Heads

Facts = Mapping[str, Any]  # name of the fact → value
# (key in an artifact, what it says, the name of the fact that this is)
Statement = tuple[str, Any, str]

# Facts that have the name of their key in config.json.
SAME_NAME = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
END, GENERATION, CONFIG = "eos_token_id", "generation_config.json", "config.json"


def facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a Hugging Face config states; transformers 5 nests those of the rope."""
    heads = Heads.of(config)
    rope = config.get("rope_parameters") or {}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    facts = {
        **{name: config[name] for name in SAME_NAME if name in config},
        "num_attention_heads": heads.query,
        "num_key_value_heads": heads.kv,
        "head_dim": heads.size,
        "attention_scale": heads.size**-0.5,
        "rotary": 1,
        "interleaved": 0,
        "max_position_embeddings": config.get("max_position_embeddings"),
        "model_type": config.get("model_type"),
        "rope_theta": theta,
    }
    scaling = config.get("rope_scaling") or rope
    if theta and scaling.get("rope_type", scaling.get("type", "default")) == "default":
        frequencies = float(theta) ** (-np.arange(0, heads.size, 2) / heads.size)
        facts["rotary_cosine"] = np.cos(frequencies)  # of the second position
    return {name: value for name, value in facts.items() if value is not None}


def end_tokens(folder: Path) -> frozenset[int]:
    """What ends a reply, as transformers reads it: of generation_config.json, else config.json.

    Raises:
        InputError: one of them cannot be read.
    """
    for name in (GENERATION, CONFIG):
        path = folder / name
        value: Any = read_json(path).get(END) if path.exists() else None
        if value is not None:
            return frozenset(value if isinstance(value, list) else [value])
    return frozenset()
