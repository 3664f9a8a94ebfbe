"""llama.cpp computes from our f32 file what PyTorch computes from the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from runtimes import llamacpp
from tests.exported import export_tiny
from tests.tiny import FAMILIES, TRAINING_TEXT, VOCAB, make_checkpoint
from tests.tolerance import OTHER_RUNTIME, relative_error

pytestmark = pytest.mark.numbers

LENGTH, PROMPT = 200, 150


@pytest.mark.parametrize("family", FAMILIES)
def test_f32_logits_equal_pytorch_in_prefill_and_decode(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **FAMILIES[family])
    ids = np.random.default_rng(0).integers(0, VOCAB, LENGTH).tolist()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    runtime = llamacpp.open_runtime(export_tiny(folder, "gguf", "f32", tmp_path), 1)
    try:
        assert relative_error(runtime.logits(ids), expected) < OTHER_RUNTIME
        steps = [runtime.start(ids[:PROMPT]), *map(runtime.step, ids[PROMPT:])]
        assert relative_error(np.array(steps), expected[PROMPT - 1 :]) < OTHER_RUNTIME
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
