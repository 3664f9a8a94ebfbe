"""Split fused projections into the checkpoint's own matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.errors import InputError


@dataclass(frozen=True)
class Heads:
    """Attention dimensions, as a config file states them."""

    query: int
    kv: int
    size: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> Heads:
        """Read a Hugging Face config.json or MLC's `model_config`: they name these alike."""
        query = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or config["hidden_size"] // query)
        return Heads(query, int(config.get("num_key_value_heads") or query), size)


def split(name: str, weight: np.ndarray, heads: Heads) -> Iterator[tuple[str, np.ndarray]]:
    """(name, matrix) of each part of a fused weight [out, in]; any other weight as it is.

    Raises:
        InputError: the rows are not what the heads ask for.
    """
    rows = weight.shape[0]
    parts = {
        "qkv_proj": (
            ("q_proj", heads.query * heads.size),
            ("k_proj", heads.kv * heads.size),
            ("v_proj", heads.kv * heads.size),
        ),
        "gate_up_proj": (("gate_proj", rows // 2), ("up_proj", rows // 2)),
    }
    module, _, kind = name.rpartition(".")
    parent, _, layer = module.rpartition(".")
    if layer not in parts:
        yield name, weight
        return
    if sum(size for _, size in parts[layer]) != rows:
        raise InputError(f"tensor {name} has {rows} rows, which its parts do not add up to")
    start = 0
    for part, size in parts[layer]:
        yield f"{parent}.{part}.{kind}", weight[start : start + size]
        start += size
