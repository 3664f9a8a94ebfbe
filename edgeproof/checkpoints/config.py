"""config.json without what trainers leave in it and what says nothing of the model.

Exporters and the reference read the same: what a machine of the trainer had (its attention
kernels), how an earlier copy was quantised, and flags that are null, which means false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QUANTISED = "quantization_config"
# Of the trainer's machine.
KERNELS = ("_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal")
LOADED = ("load_in_4bit", "load_in_8bit")
FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_cache", "use_sliding_window")


def settled(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The config of weights that are stored as plain floats; without leftovers, what was given."""
    dropped = {QUANTISED, *KERNELS, *(key for key in FLAGS if raw.get(key, False) is None)}
    return {key: value for key, value in raw.items() if key not in dropped}


def quantisation(raw: Mapping[str, Any]) -> str | None:
    """How the weights are stored, if config.json says that they are quantised.

    Source: transformers, `quantizers/auto.py` (`AutoQuantizationConfig.from_dict`): bitsandbytes
    did not name itself once.
    """
    found = raw.get(QUANTISED)
    if not isinstance(found, Mapping):
        return None
    unnamed = "bitsandbytes" if any(found.get(key) for key in LOADED) else "an unnamed method"
    return str(found.get("quant_method") or unnamed)
