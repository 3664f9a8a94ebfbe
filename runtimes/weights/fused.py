"""Split fused projections into the checkpoint's own matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.errors import InputError


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


QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")
FUSED = {
    "qkv_proj": QUERY_KEY_VALUE,
    "c_attn": QUERY_KEY_VALUE,
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def parts(name: str) -> tuple[str, ...]:
    """The checkpoint's names of what a stored tensor holds; its own where nothing is fused."""
    module, _, kind = name.rpartition(".")
    parent, _, layer = module.rpartition(".")
    return tuple(f"{parent}.{part}.{kind}" for part in FUSED.get(layer, ())) or (name,)


def split(name: str, weight: np.ndarray, heads: Heads | None) -> Iterator[tuple[str, np.ndarray]]:
    """(name, matrix) of each of the `parts` of a stored weight [out, in].

    Raises:
        InputError: the rows are not what the heads ask for.
    """
    names, rows = parts(name), weight.shape[0]
    sizes = [rows // len(names)] * len(names)
    if len(names) == 3 and heads:
        sizes = [count * heads.size for count in (heads.query, heads.kv, heads.kv)]
    if sum(sizes) != rows:
        raise InputError(f"tensor {name} has {rows} rows, which its parts do not add up to")
    yield from zip(names, np.split(weight, np.cumsum(sizes)[:-1]), strict=True)
