"""A decoder in NumPy whose config.json says what it computes, beside Llama's own keys.

Names of tensors are OLMo 2's and Gemma 3's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Keys of config.json beyond Llama's, and what they are where it has none of them.
PLAIN: dict[str, Any] = {
    "norm_order": "pre",
    "norm_offset": 0.0,
    "head_norms": None,  # "each" or "together"
    "hidden_act": "silu",
    "gated": True,
    "embedding_multiplier": 1.0,
    "attention_multiplier": 0.25,  # 1/√16
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
    "thetas": None,  # of each layer; 0 for one that does not rotate
    "softcap": None,
}
OLMO2 = {"norm_order": "post", "head_norms": "together", "tie_word_embeddings": False}
GEMMA3 = {
    "norm_order": "both",
    "norm_offset": 1.0,
    "head_norms": "each",
    "hidden_act": "gelu_pytorch_tanh",
    "embedding_multiplier": 8.0,  # √64
    "attention_multiplier": 0.2,
}
GRANITE = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}


def logits(
    config: Mapping[str, Any], weights: Mapping[str, np.ndarray], ids: list[int]
) -> np.ndarray:
    """Of a checkpoint's config.json and tensors, in float64: [T, V]."""
    raw = {**PLAIN, **config}
    w = {
        name.removeprefix("model.").removesuffix(".weight"): values.astype(np.float64)
        for name, values in weights.items()
    }
    heads, kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
    size = raw["hidden_size"] // heads
    before, after = raw["norm_order"] in ("pre", "both"), raw["norm_order"] in ("post", "both")

    def norm(x: np.ndarray, name: str, present: bool = True) -> np.ndarray:
        if not present:
            return x
        mean = np.square(x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + raw["rms_norm_eps"]) * (raw["norm_offset"] + w[name])

    def activation(x: np.ndarray) -> np.ndarray:
        if raw["hidden_act"] == "silu":
            return x / (1 + np.exp(-x))
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def split(x: np.ndarray, count: int, name: str) -> np.ndarray:
        """[T, count × size] → [count, T, size], normalised."""
        x = norm(x, name, raw["head_norms"] == "together").reshape(len(x), count, size)
        return norm(x, name, raw["head_norms"] == "each").swapaxes(0, 1)

    def rotated(x: np.ndarray, theta: float) -> np.ndarray:
        if not theta:
            return x
        exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        frequencies = (1 / np.float32(theta) ** exponents).astype(np.float32)
        angles = np.arange(x.shape[1], dtype=np.float32)[:, None] * frequencies
        cosine, sine = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate(
            [first * cosine - second * sine, second * cosine + first * sine], axis=-1
        )

    def attention(x: np.ndarray, layer: str, theta: float) -> np.ndarray:
        query, key, value = (x @ w[f"{layer}.{name}_proj"].T for name in "qkv")
        query = rotated(split(query, heads, f"{layer}.q_norm"), theta)
        key = rotated(split(key, kv_heads, f"{layer}.k_norm"), theta)
        value = value.reshape(len(x), kv_heads, size).swapaxes(0, 1)
        key, value = (np.repeat(item, heads // kv_heads, axis=0) for item in (key, value))
        scores = query @ key.swapaxes(1, 2) * raw["attention_multiplier"]
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = weights / weights.sum(-1, keepdims=True) @ value
        return mixed.swapaxes(0, 1).reshape(len(x), -1) @ w[f"{layer}.o_proj"].T

    def mlp(x: np.ndarray, layer: str) -> np.ndarray:
        up = x @ w[f"{layer}.up_proj"].T
        inner = activation(x @ w[f"{layer}.gate_proj"].T) * up if raw["gated"] else activation(up)
        return inner @ w[f"{layer}.down_proj"].T

    x = w["embed_tokens"][ids] * raw["embedding_multiplier"]
    thetas = raw["thetas"] or [raw["rope_theta"]] * raw["num_hidden_layers"]
    for number, theta in enumerate(thetas):
        layer, factor = f"layers.{number}", raw["residual_multiplier"]
        y = attention(norm(x, f"{layer}.input_layernorm", before), f"{layer}.self_attn", theta)
        x = x + factor * norm(y, f"{layer}.post_attention_layernorm", after)
        y = mlp(norm(x, f"{layer}.pre_feedforward_layernorm", before), f"{layer}.mlp")
        x = x + factor * norm(y, f"{layer}.post_feedforward_layernorm", after)
    head = w["embed_tokens" if raw["tie_word_embeddings"] else "lm_head"]
    return np.asarray(norm(x, "norm") @ head.T / raw["logits_scaling"])
