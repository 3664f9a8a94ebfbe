"""What an artifact of a family has to stand: logits, weights, metadata and hidden states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from edgeproof.artifact import Artifact
from runtimes.formats import dequantise
from runtimes.parity.localise import Cause, Subject, localise
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.registry import open_reference, open_runtime
from tests.tiny import VOCAB
from tests.tolerance import REORDERED_FLOAT32, relative_error

LENGTH, PROMPT = 60, 41


RUNTIMES = {"onnx": "onnxruntime", "gguf": "llama_cpp", "mlc": "tvm"}


def require_runtime(form: str) -> None:
    """Skip a test of a format whose runtime is not installed."""
    pytest.importorskip(RUNTIMES[form])


def some_ids() -> list[int]:
    """Tokens that tell positions apart."""
    return [int(token) for token in np.random.default_rng(0).integers(0, VOCAB, LENGTH)]


def transformers_model(folder: Path) -> torch.nn.Module:
    """transformers' own model of a checkpoint, float32."""
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def check_logits(artifact: Artifact, folder: Path, limit: float) -> None:
    """Logits of a text, and step by step through the KV cache, are transformers'."""
    ids = some_ids()
    with torch.no_grad():
        expected = transformers_model(folder)(torch.tensor([ids])).logits[0].numpy()
    check_runtime(artifact, ids, expected, limit)


def check_runtime(artifact: Artifact, ids: list[int], expected: np.ndarray, limit: float) -> None:
    """Logits [n, V] of a text, and step by step through the KV cache, are the expected ones."""
    runtime = open_runtime(artifact, 1)
    try:
        assert relative_error(runtime.logits(ids), expected) < limit
        steps = [runtime.start(ids[:PROMPT]), *map(runtime.step, ids[PROMPT:])]
        assert relative_error(np.array(steps), expected[PROMPT - 1 :]) < limit
    finally:
        runtime.close()


def check_stored(artifact: Artifact, folder: Path) -> None:
    """Weights of float32 come back under transformers' names, and nothing it says is blamed."""
    assert compare_metadata(artifact, folder) == ()
    weights = dequantise(artifact)
    expected = dict(transformers_model(folder).named_parameters())
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value.detach().numpy(), err_msg=name)


def check_traced(artifact: Artifact, folder: Path) -> None:
    """The reference is transformers' model, and step by step a sound file does what it does."""
    reference = open_reference(folder, 1)
    with torch.no_grad():
        expected = transformers_model(folder)(torch.tensor([some_ids()])).logits[0].numpy()
    assert relative_error(reference.logits(some_ids()), expected) < REORDERED_FLOAT32
    found = localise(Subject(artifact, folder, reference, some_ids(), 1), None)
    assert [item.cause for item in found.findings] == [Cause.NONE], found
    assert len(found.layer_errors) > 3
