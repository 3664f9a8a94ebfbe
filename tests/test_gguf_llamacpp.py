"""llama.cpp computes from our f32 file what PyTorch computes from the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from runtimes import llamacpp
from tests.exported import export_tiny
from tests.tiny import TRAINING_TEXT, VOCAB, make_checkpoint

LAYOUTS: dict[str, dict[str, Any]] = {
    "tied GQA": {},
    "untied MHA": {"tie_word_embeddings": False, "num_key_value_heads": 4},
    "wide heads, bf16, sharded": {"head_dim": 32, "dtype": "BF16", "shards": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_f32_logits_equal_pytorch(tmp_path: Path, layout: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **LAYOUTS[layout])
    ids = np.random.default_rng(0).integers(0, VOCAB, 40).tolist()
    whole = make_checkpoint(tmp_path / "whole", **{**LAYOUTS[layout], "shards": 1})
    model = LlamaForCausalLM.from_pretrained(whole, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    runtime = llamacpp.open_runtime(export_tiny(folder, "gguf", "f32", tmp_path), 1)
    try:
        assert np.abs(runtime.logits(ids) - expected).max() < 1e-4
    finally:
        runtime.close()


def test_llama_cpp_tokenizes_as_the_checkpoint(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    runtime = llamacpp.open_runtime(export_tiny(folder, "gguf", "q8_0", tmp_path), 1)
    texts = [*TRAINING_TEXT, "in 1999,  42", "<|im_start|>user\nhé 🙂<|im_end|>", "", " \n\n\t x"]
    try:
        for text in texts:
            assert runtime.tokenize(text) == tokenizer.encode(text).ids, text
    finally:
        runtime.close()
