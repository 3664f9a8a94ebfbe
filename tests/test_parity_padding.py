"""Left-padded batches: equal rows pass, wrong masks fail, and rounding by batch is no fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.onnxruntime import OnnxRuntime
from runtimes.parity.padding import PaddingResult, measure_padding
from runtimes.parity.suite import Document
from runtimes.registry import open_runtime
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint
from tests.tolerance import REORDERED_KL

pytestmark = pytest.mark.numbers

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
    runtime = open_runtime(export_tiny(checkpoint, "onnx", "fp32", tmp_path), THREADS)
    result = measure_padding(runtime, documents)
    assert result is not None
    assert result.kl < REORDERED_KL
    assert result.unpadded_kl < REORDERED_KL
    assert result.fault is None


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("fault", ["mask", "positions"])
def test_a_batch_without_its_mask_or_positions_is_a_fault(
    checkpoint: Path,
    documents: list[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    variant: str,
) -> None:
    runtime = open_runtime(export_tiny(checkpoint, "onnx", variant, tmp_path), THREADS)
    assert isinstance(runtime, OnnxRuntime)
    run = runtime._run

    def wrong(outputs: Any, ids: Any, mask: np.ndarray, past: Any, keep: int) -> Any:
        bad = np.ones_like(mask) if fault == "mask" else np.roll(mask, -3, axis=1)
        return run(outputs, ids, bad if len(mask) > 1 else mask, past, keep)

    monkeypatch.setattr(runtime, "_run", wrong)
    result = measure_padding(runtime, documents)
    assert result is not None
    assert result.fault is not None
    assert "left padding" in result.fault


@pytest.mark.parametrize("variant", ["int8", "uint8"])
def test_one_scale_per_call_rounds_otherwise_in_any_batch_and_is_no_fault(
    checkpoint: Path, documents: list[Document], tmp_path: Path, variant: str
) -> None:
    runtime = open_runtime(export_tiny(checkpoint, "onnx", variant, tmp_path), THREADS)
    result = measure_padding(runtime, documents)
    assert result is not None
    assert result.unpadded_kl > 1e-6, "rounded with the batch's scale"
    assert result.limit >= 4 * result.unpadded_kl
    assert result.fault is None


@pytest.mark.parametrize(
    ("kl", "unpadded", "sound"),
    [
        (0.01, 0, True),
        (0.5, 0.2, True),
        (0.5, 0.1, False),
        (0.5, 0, False),
        (float("nan"), 1, False),
    ],
)
def test_the_limit_follows_what_a_batch_without_padding_costs(
    kl: float, unpadded: float, sound: bool
) -> None:
    assert (PaddingResult(kl, unpadded).fault is None) == sound


def test_a_runtime_without_batches_has_no_figure(
    checkpoint: Path, documents: list[Document], tmp_path: Path
) -> None:
    runtime = open_runtime(export_tiny(checkpoint, "gguf", "f32", tmp_path), THREADS)
    assert measure_padding(runtime, documents) is None
    runtime.close()
