"""The decoder in NumPy computes what transformers does, for the families whose structure it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
)

from tests.numpy_decoder import GEMMA3, GRANITE, OLMO2, PLAIN, logits
from tests.tiny import VOCAB, config
from tests.tolerance import REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers


def transformers_olmo2(shared: dict[str, Any]) -> Any:
    return Olmo2ForCausalLM(Olmo2Config(**shared))


def transformers_gemma3(shared: dict[str, Any]) -> Any:
    rope = {"rope_type": "default", "rope_theta": shared.pop("rope_theta")}
    types = {"full_attention": rope, "sliding_attention": rope}
    config = Gemma3TextConfig(
        **shared,
        head_dim=16,
        query_pre_attn_scalar=25,
        layer_types=["full_attention"] * 3,
        rope_parameters=types,
        hidden_activation="gelu_pytorch_tanh",
    )
    return Gemma3ForCausalLM(config)


def transformers_granite(shared: dict[str, Any]) -> Any:
    return GraniteForCausalLM(GraniteConfig(**shared, **GRANITE))


@pytest.mark.parametrize(
    ("changes", "build"),
    [
        (OLMO2, transformers_olmo2),
        (GEMMA3, transformers_gemma3),
        (GRANITE, transformers_granite),
    ],
)
def test_logits_are_transformers(
    changes: dict[str, Any], build: Callable[[dict[str, Any]], Any]
) -> None:
    raw = config(**changes)
    left_out = {*PLAIN, "model_type", "architectures", "torch_dtype"}
    model = build({key: value for key, value in raw.items() if key not in left_out}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            wide = parameter.ndim > 1
            parameter.copy_(noise / parameter.shape[-1] ** 0.5 if wide else 1 + noise / 10)
    ids = [int(token) for token in np.random.default_rng(0).integers(0, VOCAB, 60)]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    ours = "pre_feedforward_layernorm"
    theirs = "post_attention_layernorm" if changes is GRANITE else ours  # of the same norm
    weights = {
        name.replace(theirs, ours): parameter.detach().numpy()
        for name, parameter in model.named_parameters()
    }
    assert relative_error(expected, logits(raw, weights, ids)) < REORDERED_FLOAT32
