"""Rotary tables as a reader computes them: transformers' own, at every position of a context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from runtimes.config_facts import NO_WINDOW, facts_of, sliding_window
from runtimes.rotary import RotaryTable, divisors
from tests.tiny import LLAMA3_ROPE, config

LONG = {"max_position_embeddings": 131072, "head_dim": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {**LONG, "rope_theta": 1e6},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "llama3": {**LONG, "rope_scaling": {**LLAMA3_ROPE, "original_max_position_embeddings": 8192}},
    "transformers 5": {"rope_parameters": {**LLAMA3_ROPE, "rope_theta": 5e5}, "rope_theta": 1e4},
}


def tables(raw: dict[str, Any]) -> dict[str, np.ndarray]:
    """Cosines and sines that PyTorch rotates with: float32 [positions, head_dim / 2]."""
    positions = torch.arange(raw["max_position_embeddings"])[None]
    found = LlamaRotaryEmbedding(LlamaConfig(**raw))(torch.zeros(1), positions)
    half = found[0].shape[-1] // 2
    return {
        name: part[0, :, :half].numpy()
        for name, part in zip(("rotary_cosine", "rotary_sine"), found, strict=True)
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_a_table_of_the_reference_is_right_in_every_row_in_float16_too(name: str) -> None:
    raw = config(**CONFIGS[name])
    facts = facts_of(raw)
    for fact, table in tables(raw).items():
        known = facts[fact]
        assert isinstance(known, RotaryTable)
        assert known.wrong_row(table) is None
        assert known.wrong_row(table.astype(np.float16)) is None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_wrong_row_is_found(name: str) -> None:
    raw = config(**CONFIGS[name])
    known = facts_of(raw)["rotary_sine"]
    table = tables(raw)["rotary_sine"]
    row = len(table) // 2 + 1
    assert known.wrong_row(table[:row]) == row
    assert known.wrong_row(table[:, 1:]) == 0
    turned = table.copy()
    turned[row:] *= -1
    assert known.wrong_row(turned) == row
    broken = table.copy()
    broken[row, 1] = np.nan
    assert known.wrong_row(broken) == row


def test_divisors_are_what_scaling_does_to_frequencies() -> None:
    scaled, plain = config(**CONFIGS["llama3"]), config(**LONG)
    ratio = facts_of(plain)["rotary_sine"].frequencies / facts_of(scaled)["rotary_sine"].frequencies
    np.testing.assert_allclose(divisors(scaled, 64), ratio, rtol=1e-6)
    assert divisors({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, 64) is None


def test_a_window_of_the_whole_context_is_none() -> None:
    assert sliding_window(config()) == NO_WINDOW
    assert sliding_window(config(sliding_window=256)) == NO_WINDOW
    assert sliding_window(config(sliding_window=128)) == 128
    assert sliding_window(config(sliding_window=128, use_sliding_window=False)) == NO_WINDOW
