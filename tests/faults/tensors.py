"""Mistakes in weights: what an exporter with the mistake would read from the checkpoint.

Matrices are [out, in]; the rows of queries and keys are heads × head_dim, in each head the first
half of the rotary partners before the second.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeproof.families import DecoderConfig
from tests.faults.fault import ChangeTensors, Read

# The layer of faults that are in one layer.
LAYER = 1
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
QUERY, KEY, VALUE, OUTPUT = (f"self_attn.{part}_proj.weight" for part in "qkvo")
GATE, UP, DOWN = (f"mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
QUERY_BIAS = "self_attn.q_proj.bias"
INPUT_NORM, MLP_NORM = "input_layernorm.weight", "post_attention_layernorm.weight"
# Rows of the embedding that are lost at its end: tokens too rare for any text.
RARE_ROWS = 8

# One array, of the part and config, as the mistake makes it.
Change = Callable[[np.ndarray, str, DecoderConfig], np.ndarray]


def name(part: str, layer: int = LAYER) -> str:
    """The checkpoint's name of a tensor in a layer."""
    return f"model.layers.{layer}.{part}"


def swapped_query_and_key(read: Read, config: DecoderConfig) -> dict[str, np.ndarray]:
    """The keys' rows and the first of the queries'."""
    query, key = read(name(QUERY)), read(name(KEY))
    return {
        name(QUERY): np.concatenate([key, query[len(key) :]]),
        name(KEY): query[: len(key)],
    }


def swapped_gate_and_up(read: Read, config: DecoderConfig) -> dict[str, np.ndarray]:
    """Both matrices of one layer's MLP have the same shape."""
    return {name(GATE): read(name(UP)), name(UP): read(name(GATE))}


def swapped_layers(read: Read, config: DecoderConfig) -> dict[str, np.ndarray]:
    """All matrices and norms of two neighbours."""
    parts = (QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN, INPUT_NORM, MLP_NORM)
    both = (LAYER, LAYER + 1), (LAYER + 1, LAYER)
    return {name(part, to): read(name(part, of)) for part in parts for to, of in both}


def one(part: str, change: Change) -> ChangeTensors:
    """Change one tensor: a part of `LAYER`, or one outside the layers by its whole name."""
    whole = part if part in (EMBEDDING, HEAD) else name(part)
    return lambda read, config: {whole: change(read(whole), part, config)}


def all_layers(parts: tuple[str, ...], change: Change) -> ChangeTensors:
    """Change these parts of every layer."""
    return lambda read, config: {
        name(part, layer): change(read(name(part, layer)), part, config)
        for layer in range(config.layers)
        for part in parts
    }


def zeros(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """Left out."""
    return np.zeros_like(values)


def ones(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """A norm's weight left out."""
    return np.ones_like(values)


def plus_one(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """A norm's weight as Gemma's, which are stored as what they differ from 1."""
    return np.asarray(values + values.dtype.type(1))


def transposed(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """A matrix as [in, out], which has the right shape where it is square or nobody looks."""
    return np.ascontiguousarray(values.T).reshape(values.shape)


def rows_shifted(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """Every token gets its neighbour's row."""
    return np.roll(values, 1, axis=0)


def last_rows_lost(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """Padding in place of the last tokens."""
    kept = values.copy()
    kept[-RARE_ROWS:] = 0
    return np.asarray(kept)


def heads_shifted(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """Every group of query heads gets its neighbour's keys or values."""
    return np.roll(values, config.head_dim, axis=0)


def paired(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """Rotary partners side by side, as llama.cpp wants them, where halves belong."""
    return _swapped(values, (_heads(part, config), 2, config.head_dim // 2))


def parted(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """The inverse of `paired`: an exporter that pairs these writes the original order."""
    return _swapped(values, (_heads(part, config), config.head_dim // 2, 2))


def one_position_on(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """Queries rotated by one position more than keys."""
    half = config.head_dim // 2
    angles = config.rope.theta ** (-np.arange(half) / half)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = np.split(values.reshape(config.heads, -1, values.shape[1]), 2, axis=1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return np.concatenate(turned, axis=1).reshape(values.shape).astype(values.dtype)


def scaled_twice(values: np.ndarray, part: str, config: DecoderConfig) -> np.ndarray:
    """The softmax's scale in the queries too."""
    return np.asarray(values * config.head_dim**-0.5, values.dtype)


def _heads(part: str, config: DecoderConfig) -> int:
    return config.heads if part == QUERY else config.kv_heads


def _swapped(rows: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Rows as three axes, the last two exchanged."""
    parts = rows.reshape(*shape, *rows.shape[1:])
    return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(rows.shape)
