"""Adapters that peft itself wrote: merged, the checkpoint computes what PeftModel computes.

An outside check of `export.sources.adapters`; peft is for development only (`pip install peft`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from runtimes.registry import open_reference
from tests import tiny
from tests.test_adapters import IDS, LINEAR, merged
from tests.tolerance import REORDERED_FLOAT32, relative_error

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.numbers

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LoRA": ({"target_modules": [*LINEAR]}, {"attention_bias": True}),
    "DoRA": ({"target_modules": [*LINEAR], "use_dora": True}, {"attention_bias": True}),
    "rsLoRA": ({"target_modules": [*LINEAR], "use_rslora": True}, {"dtype": "BF16"}),
    "patterns": (
        {
            "target_modules": ["q_proj", "down_proj"],
            "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.1.mlp.down_proj": 20},
            "layers_to_transform": [0, 1],
        },
        {},
    ),
    "fused layers": ({"target_modules": "all-linear"}, tiny.PHI3),
    "all linear layers": ({"target_modules": "all-linear"}, tiny.QWEN3),
    "whole modules": (
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        {"tie_word_embeddings": False},
    ),
    "biases": ({"target_modules": ["q_proj"], "bias": "lora_only"}, {"attention_bias": True}),
    "embedding": ({"target_modules": ["embed_tokens", "o_proj"]}, {"tie_word_embeddings": False}),
    "rows of tokens": ({"target_modules": ["q_proj"], "trainable_token_indices": [3, 300]}, {}),
}  # fmt: skip


def trained(base: Path, folder: Path, settings: dict[str, Any]) -> np.ndarray:
    """Save an adapter with random values in all that it trains; PeftModel's logits [T, V]."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4, lora_alpha=12, lora_dropout=0.1, task_type="CAUSAL_LM", **settings
    )
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    loaded = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder
    ).eval()
    with torch.no_grad():
        logits: np.ndarray = loaded(torch.tensor([IDS])).logits[0].numpy()
    return logits


@pytest.mark.parametrize("name", KINDS)
def test_merged_is_pefts_own_model(tmp_path: Path, name: str) -> None:
    settings, changes = KINDS[name]
    base = tiny.make_checkpoint(tmp_path / "base", **changes)
    expected = trained(base, tmp_path / "lora", settings)
    found = open_reference(merged(base, tmp_path / "lora"), 1).logits(IDS)
    assert relative_error(found, expected) < REORDERED_FLOAT32
    assert relative_error(open_reference(base, 1).logits(IDS), expected) > 0.01
