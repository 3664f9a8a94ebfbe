"""Phi-3's rotary embedding: of a share of the channels, and stretched by tables of divisors.

Source: transformers, `configuration_phi3.py` and `_compute_longrope_parameters` in
`modeling_rope_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.rope import DEFAULT_THETA, LongScaling, Rope, positive

ORIGINAL, SHARE = "original_max_position_embeddings", "partial_rotary_factor"
DEFAULT_ORIGINAL = 4096  # of transformers' class
LONG_ROPE = "longrope"
MOST_OF_ALL = 2**31 - 1  # positions
OLD_NAMES = ("su", "yarn")  # of Phi-3's first configs, which transformers 5 does not load


def read_long_rope(raw: Mapping[str, Any]) -> Rope:
    """The rotary embedding of Phi-3's config.json.

    Raises:
        InputError: a scaling that Phi-3 has not, or one without its numbers.
    """
    said = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(said, Mapping):
        raise InputError(f"rope_scaling must be an object or null, not {said!r}")
    theta = positive(said if "rope_theta" in said else raw, "rope_theta", DEFAULT_THETA)
    share = positive(said if SHARE in said else raw, SHARE, 1.0)
    rope = Rope(theta, share=share)
    rotated = rope.rotated(_head_dim(raw))
    if share > 1 or rotated < 2 or rotated % 2:
        raise InputError(f"{SHARE} {share:g} leaves no whole pairs of channels to rotate")
    kind = said.get("rope_type", said.get("type", "default"))
    if kind == "default":
        return rope
    if kind != LONG_ROPE:
        fix = f"; write {LONG_ROPE!r}, as transformers calls it now" if kind in OLD_NAMES else ""
        raise InputError(
            f"rope scaling of type {kind!r} is not supported; supported: 'default', 'longrope'{fix}"
        )
    return Rope(theta, _scaling(said, raw, rotated), share)


def attention_factor(factor: float, original: int) -> float:
    """What cosines and sines are multiplied with, where a config does not say it."""
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def _head_dim(raw: Mapping[str, Any]) -> int:
    heads, hidden, size = (
        raw.get(key) for key in ("num_attention_heads", "hidden_size", "head_dim")
    )
    if type(heads) is not int or type(hidden) is not int or min(heads, hidden) <= 0:
        raise InputError("hidden_size and num_attention_heads must be positive integers")
    if size is not None and type(size) is not int:
        raise InputError(f"head_dim must be a positive integer, not {size!r}")
    return size or hidden // heads


def _scaling(said: Mapping[str, Any], raw: Mapping[str, Any], rotated: int) -> LongScaling:
    longest, original = raw.get("max_position_embeddings"), raw.get(ORIGINAL, DEFAULT_ORIGINAL)
    if type(longest) is not int or type(original) is not int or original < 2:
        raise InputError(f"{ORIGINAL} {original!r} must be an integer above 1")
    factor = longest / original
    if said.get("factor") is not None:
        factor = positive(said, "factor")
    if factor * original > MOST_OF_ALL:
        raise InputError(f"rope scaling by {factor:g} of {original} positions is beyond any format")
    attention = attention_factor(factor, original)
    if said.get("attention_factor") is not None:
        attention = positive(said, "attention_factor")
    short, long = (_divisors(said, key, rotated // 2) for key in ("short_factor", "long_factor"))
    return LongScaling(factor, original, short, long, attention)


def _divisors(said: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = said.get(key)
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"{key} must be a list of {count} numbers, one for each rotated pair")
    return tuple(positive({key: value}, key) for value in values)
