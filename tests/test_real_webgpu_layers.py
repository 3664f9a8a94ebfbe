"""`make verify`: the real model's first layers on WebGPU, where squares overflow float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtimes.parity.divergence import compare
from runtimes.peaks import stream_peak
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.truncated import make_truncated

pytestmark = pytest.mark.slow

TEXTS = ["The capital of France is", "<|im_start|>user\nHi", "1"]


@pytest.fixture(scope="module")
def truncated(webgpu: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_truncated(tmp_path_factory.mktemp("real") / "first-layers")


@pytest.mark.parametrize("dtype", ["fp16", "q4f16"])
def test_they_agree_with_the_cpu(truncated: Path, tmp_path: Path, dtype: str) -> None:
    """4-bit weights are compared with the same file on the CPU; float16 with PyTorch too."""
    reference = open_reference(truncated, 1)
    lines = [[t for t in reference.tokenize(text) if t < reference.vocabulary] for text in TEXTS]
    artifact = export_tiny(truncated, "onnx", dtype, tmp_path)
    on_gpu, on_cpu = (open_runtime(artifact, 1, other) for other in ("webgpu", None))
    expected = np.concatenate([reference.logits(ids) for ids in lines])
    got = np.concatenate([on_gpu.logits(ids) for ids in lines])
    on_cpu_too = np.concatenate([on_cpu.logits(ids) for ids in lines])
    assert stream_peak(reference.peaks) > 20_000
    assert np.isfinite(got).all()
    flat = [token for ids in lines for token in ids]
    for other in (expected, on_cpu_too) if dtype == "fp16" else (on_cpu_too,):
        metrics = compare(other, got, flat)
        assert metrics.kl.mean() < 0.02
        assert metrics.clear.any()
        assert metrics.top1[metrics.clear].all()
