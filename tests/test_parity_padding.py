"""Left-padded batches: equal rows pass, wrong masks fail, and rounding by batch is no fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.llamacpp import LlamaCpp
from runtimes.onnxruntime import OnnxRuntime
from runtimes.parity.metrics import compare
from runtimes.parity.padding import padding_fault, padding_kl
from runtimes.parity.suite import Document
from runtimes.protocol import BatchRuntime
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint

THREADS = 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("padding") / "tiny")


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    rng = np.random.default_rng(0)
    return [
        Document(str(index), "text", tuple(rng.integers(0, VOCAB, 80).tolist()), 0)
        for index in range(3)
    ]


def test_rows_of_a_float_export_are_equal(
    checkpoint: Path, documents: list[Document], tmp_path: Path
) -> None:
    kl = padding_kl(open_runtime(export_tiny(checkpoint, "onnx", "fp32", tmp_path), 1), documents)
    assert kl is not None
    assert kl < 1e-9
    assert padding_fault(kl, 0.0) is None


@pytest.mark.parametrize("fault", ["mask", "positions"])
def test_a_batch_without_its_mask_or_positions_is_a_fault(
    checkpoint: Path,
    documents: list[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    runtime = open_runtime(export_tiny(checkpoint, "onnx", "fp32", tmp_path), THREADS)
    assert isinstance(runtime, OnnxRuntime)
    run = runtime._run

    def wrong(outputs: Any, ids: Any, mask: np.ndarray, past: Any, keep: int) -> Any:
        bad = np.ones_like(mask) if fault == "mask" else np.roll(mask, -3, axis=1)
        return run(outputs, ids, bad if len(mask) > 1 else mask, past, keep)

    monkeypatch.setattr(runtime, "_run", wrong)
    kl = padding_kl(runtime, documents)
    assert kl is not None
    reason = padding_fault(kl, 0.0)
    assert reason is not None
    assert "left padding" in reason


@pytest.mark.parametrize("variant", ["int8", "uint8"])
def test_one_scale_per_call_rounds_otherwise_in_a_batch_and_is_no_fault(
    checkpoint: Path, documents: list[Document], tmp_path: Path, variant: str
) -> None:
    reference = open_reference(checkpoint, THREADS)
    runtime = open_runtime(export_tiny(checkpoint, "onnx", variant, tmp_path), THREADS)
    kl = padding_kl(runtime, documents)
    own = [
        compare(reference.logits(d.ids), [runtime.logits(d.ids)], d.ids)[0].kl.mean()
        for d in documents
    ]
    assert kl is not None
    assert kl > 1e-9, "rounded with the batch's scale"
    assert padding_fault(kl, float(np.mean(own))) is None


def test_the_limit_follows_what_the_artifacts_own_rounding_costs() -> None:
    assert padding_fault(0.5, 0.2) is None
    assert padding_fault(0.5, 0.1) is not None
    assert padding_fault(0.5, float("nan")) is not None
    assert padding_fault(float("nan"), 1.0) is not None


def test_a_runtime_without_batches_has_no_figure(documents: list[Document]) -> None:
    assert not issubclass(LlamaCpp, BatchRuntime)
    assert issubclass(OnnxRuntime, BatchRuntime)
