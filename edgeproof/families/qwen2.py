"""The Qwen2 family: queries, keys and values have biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from edgeproof.families.decoder import DecoderConfig
from edgeproof.families.dense import NAMES, read_dense
from edgeproof.families.family import Family
from edgeproof.families.llama_cpp import INPUT_BIASES, LlamaCppArchitecture
from edgeproof.families.mlc import ROPE_SCALING, MlcArchitecture, activated, hidden_act
from edgeproof.families.roles import Role

BIASED = frozenset({Role.QUERY, Role.KEY, Role.VALUE})
DEFAULT_WINDOW = 4096
DEFAULT_FIRST_WINDOWED = 28
# Keys of `model_config` that MLC's Qwen definitions have not.
MLC_LACKS = frozenset({ROPE_SCALING, "pipeline_parallel_stages", "disaggregation"})


def config(raw: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json of a Qwen2 decoder.

    Raises:
        InputError: as for `read_dense`.
    """
    window, first = windows(raw)
    return read_dense(
        raw,
        "qwen2",
        required=("num_key_value_heads",),
        biased=BIASED,
        window=window,
        first_windowed=first,
    )


def windows(raw: Mapping[str, Any]) -> tuple[Any, int]:
    """How many positions a token sees, or None for all before it; the first layer with that.

    Raises:
        InputError: `max_window_layers` is no number.
    """
    first = raw.get("max_window_layers", DEFAULT_FIRST_WINDOWED)
    if not raw.get("use_sliding_window"):
        return None, 0
    if not isinstance(first, int):
        raise InputError(f"max_window_layers must be an integer, not {first!r}")
    return raw.get("sliding_window", DEFAULT_WINDOW), first


FAMILY = Family(
    config,
    NAMES,
    LlamaCppArchitecture(
        "qwen2", False, INPUT_BIASES, rope_freqs=False, extents=False, head_size=False
    ),
    MlcArchitecture(
        "qwen2",
        activated,
        hidden_act,
        biases=lambda keys: BIASED,
        attention="c_attn",
        theta="rope_theta",
        lacks=MLC_LACKS,
        square=True,
    ),
)
