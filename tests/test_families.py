"""The families' tables are transformers' own parameters, and rotary angles are its angles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edgeproof.errors import InputError
from edgeproof.families import read_config
from edgeproof.families.dense import FULL, SLIDING
from edgeproof.families.rope import divisors, frequencies, scaled_frequencies
from tests.tiny import FAMILIES, GRANITE, LLAMA3_ROPE, OTHERS, PHI3, SMOLLM3, config

pytestmark = pytest.mark.numbers

SLIDING_QWEN = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8}
STORAGE = ("dtype", "shards")  # of `make_checkpoint`, not of config.json


def raw_config(**changes: Any) -> dict[str, Any]:
    return config(**{key: value for key, value in changes.items() if key not in STORAGE})


def model_of(raw: dict[str, Any]) -> Any:
    """transformers' model of a config.json, without values."""
    rest = {key: value for key, value in raw.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(raw["model_type"], **rest))


EVERY = {**FAMILIES, **OTHERS, "phi3": PHI3}


@pytest.mark.parametrize("family", EVERY)
def test_the_tables_are_transformers_parameters(family: str) -> None:
    raw = raw_config(**EVERY[family])
    _, parameters = read_config(raw)
    expected = {name: tuple(p.shape) for name, p in model_of(raw).named_parameters()}
    found: dict[str, tuple[int, ...]] = {}
    for item in parameters:
        name = item.within or item.name
        found[name] = (found.get(name, (0,))[0] + item.shape[0], *item.shape[1:])
    assert found == expected


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 3.0},
        LLAMA3_ROPE,
        {**LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 8192},
        {**LLAMA3_ROPE, "factor": 3.7, "low_freq_factor": 1.5, "high_freq_factor": 2.0},
    ],
    ids=["default", "linear", "short", "as Llama 3.2", "odd"],
)
def test_rotary_frequencies_are_transformers(rope: dict[str, Any], head_dim: int) -> None:
    raw = raw_config(head_dim=head_dim, rope_parameters={**rope, "rope_theta": 500000.0})
    c, _ = read_config(raw)
    ours = scaled_frequencies(c.head_dim, c.rope)
    rest = {key: value for key, value in raw.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **rest))
    theirs = model.model.rotary_emb.inv_freq.numpy()
    assert ours.dtype == np.float32
    # One unit in the last place of the power, and its way through the passage.
    np.testing.assert_allclose(ours, theirs, rtol=5e-7, atol=0)
    if c.rope.scaling is not None:
        by = divisors(c.head_dim, c.rope.theta, c.rope.scaling)
        np.testing.assert_allclose(frequencies(head_dim, 500000.0) / by, theirs, rtol=5e-7)
        assert by.max() == np.float32(c.rope.scaling.factor)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mistral", "sliding_window": 256},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 8},
        {"model_type": "qwen2", "layer_types": ["full_attention"] * 3},
        {"partial_rotary_factor": 1.0},
    ],
)
def test_what_changes_nothing_is_accepted(changes: dict[str, Any]) -> None:
    plain = {"model_type": changes.get("model_type", "llama"), "sliding_window": None}
    assert read_config(config(**changes)) == read_config(config(**plain))


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "mistral", "max_position_embeddings": 8192}, [4096, 4096, 4096]),
        ({"model_type": "mistral", "sliding_window": 8}, [8, 8, 8]),
        ({**SLIDING_QWEN, "max_window_layers": 1}, [None, 8, 8]),
        (SLIDING_QWEN, [None, None, None]),
        ({**SLIDING_QWEN, "layer_types": [SLIDING, FULL, SLIDING]}, [8, None, 8]),
    ],
)
def test_windows_are_of_the_layers_that_transformers_gives_them(
    changes: dict[str, Any], windows: list[int | None]
) -> None:
    raw = config(**changes)
    assert [layer.window for layer in read_config(raw)[0].structure.layers] == windows
    rest = {key: value for key, value in raw.items() if key != "model_type"}
    theirs = AutoConfig.for_model(raw["model_type"], **rest)
    types = getattr(theirs, "layer_types", [SLIDING] * 3)
    assert [theirs.sliding_window if kind == SLIDING else None for kind in types] == windows


@pytest.mark.parametrize(
    ("changes", "rotating", "windows"),
    [
        ({}, [1, 1, 1, 0], [None] * 4),
        ({"no_rope_layers": [0, 1, 1, 1, 0, 0]}, [0, 1, 1, 1], [None] * 4),
        ({"no_rope_layer_interval": 2}, [1, 0, 1, 0], [None] * 4),
        ({"use_sliding_window": True, "sliding_window": 8}, [1, 1, 1, 0], [None, None, None, 8]),
        ({"use_sliding_window": False, "sliding_window": 8}, [1, 1, 1, 0], [None] * 4),
    ],
)
def test_smollm3_rotates_the_layers_that_transformers_rotates(
    changes: dict[str, Any], rotating: list[int], windows: list[int | None]
) -> None:
    raw = config(**{**SMOLLM3, **changes})
    layers = read_config(raw)[0].structure.layers
    assert [int(layer.rope is not None) for layer in layers] == rotating
    assert [layer.window for layer in layers] == windows
    model = model_of(raw)
    found = [layer.self_attn.use_rope for layer in model.model.layers]
    assert [int(rotates) for rotates in found] == rotating
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == windows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**SMOLLM3, "no_rope_layers": [1, 1]}, "no_rope_layers must be a list of 0 and 1"),
        ({**SMOLLM3, "no_rope_layers": [1, 1, 2, 0]}, "one for each of 4 layers"),
        ({**SMOLLM3, "no_rope_layer_interval": 0}, "no_rope_layer_interval must be a positive"),
        ({**GRANITE, "logits_scaling": 0}, "logits_scaling must be a positive number, not 0"),
        *(
            ({**GRANITE, "logits_scaling": value}, "logits_scaling must be a positive number")
            for value in (10**400, 1e300, 5e-324)  # none is float32's, or its inverse is not
        ),
        ({**GRANITE, "residual_multiplier": "0.2"}, "residual_multiplier must be a positive"),
        ({**GRANITE, "embedding_multiplier": True}, "embedding_multiplier must be a positive"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false"),
        ({**FAMILIES["qwen3"], "attention_bias": 0}, "attention_bias must be true or false, not 0"),
        ({"model_type": "lfm2"}, "'lfm2' is a hybrid of attention and short convolutions"),
        ({"model_type": "gemma3"}, r"'gemma3' takes images too.* \(gemma3_text\)"),
        ({"model_type": "qwen3_5"}, "'qwen3_5' is a hybrid of attention and linear attention"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_config(config(**changes))
    assert "\n" not in str(caught.value)
