from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.exported import export_tiny
from tests.tiny import FAMILIES, VOCAB, make_checkpoint
from tests.tolerance import OTHER_RUNTIME, REORDERED_FLOAT32, ROUNDED, relative_error

pytestmark = pytest.mark.numbers

KINDS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "untied": {"tie_word_embeddings": False},
    "multi-head": {"num_key_value_heads": 4, "rope_theta": 10000.0, "rms_norm_eps": 1e-6},
    "wide-heads": {"head_dim": 32},
    "tanh-GELU": {"hidden_act": "gelu_pytorch_tanh"},
    "bf16": {"dtype": "BF16"},
    "f16-sharded": {"dtype": "F16", "shards": 3},
}
GRAPHS = ("fused", "portable")
Caches = list[np.ndarray]


class Session:
    """A graph in ONNX Runtime with its past as plain arrays."""

    def __init__(self, path: Path) -> None:
        self.session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = {item.name: item for item in self.session.get_inputs()}

    def empty(self, batch: int) -> Caches:
        """A cache of no positions."""
        dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        return [
            np.zeros((batch, item.shape[1], 0, item.shape[3]), dtypes[item.type])
            for name, item in self.inputs.items()
            if name.startswith("past")
        ]

    def run(
        self, ids: np.ndarray, mask: np.ndarray, past: Caches, keep: int = 0
    ) -> tuple[np.ndarray, Caches]:
        """Logits [batch, positions, vocab] and the caches after it."""
        feed = {"input_ids": ids, "attention_mask": mask}
        names = [name for name in self.inputs if name.startswith("past")]
        feed |= dict(zip(names, past, strict=True))
        if "num_logits_to_keep" in self.inputs:
            feed["num_logits_to_keep"] = np.array(keep)
        logits, *present = self.session.run(None, feed)
        return logits, present

    def all_logits(self, ids: np.ndarray) -> np.ndarray:
        """Logits of unpadded rows."""
        return self.run(ids, np.ones_like(ids), self.empty(len(ids)))[0]


def random_ids(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, VOCAB, (rows, length))


def reference(checkpoint: Path, ids: np.ndarray) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return np.asarray(model.eval()(torch.tensor(ids)).logits.numpy())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module", params=GRAPHS)
def fp32(request: pytest.FixtureRequest, tiny: Path) -> Session:
    artifact = export_tiny(tiny, "onnx", "fp32", tiny.parent, graph=request.param)
    return Session(artifact.path / "onnx" / "model.onnx")


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_pytorch_at_every_position(kind: str, graph: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **KINDS[kind])
    artifact = export_tiny(checkpoint, "onnx", "fp32", tmp_path, graph=graph)
    ids = random_ids(2, 256)  # the whole context
    expected = reference(checkpoint, ids)
    for folder in ("onnx", "."):
        logits = Session(artifact.path / folder / "model.onnx").all_logits(ids)
        assert logits.dtype == np.float32
        assert relative_error(logits, expected) < OTHER_RUNTIME


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("family", ["tied", "biases", "qwen2", "qwen3"])
def test_fp16_logits_are_float32_and_close_to_pytorch(
    tmp_path: Path, family: str, graph: str
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    artifact = export_tiny(checkpoint, "onnx", "fp16", tmp_path, graph=graph)
    session = Session(artifact.path / "onnx" / "model_fp16.onnx")
    ids = random_ids(1, 64)
    expected = reference(checkpoint, ids)
    logits = session.all_logits(ids)
    assert logits.dtype == np.float32
    assert session.empty(1)[0].dtype == np.float16
    assert relative_error(logits, expected) < ROUNDED["float16"]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_pytorch_in_prefill_decode_and_left_padding(
    family: str, graph: str, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    artifact = export_tiny(checkpoint, "onnx", "fp32", tmp_path, graph=graph)
    session = Session(artifact.path / "model.onnx")
    ids, padding, prompt = random_ids(2, 200), (0, 60), 190
    mask = np.ones_like(ids)
    mask[1, : padding[1]] = 0
    logits, past = session.run(ids[:, :prompt], mask[:, :prompt], session.empty(2))
    rows = [logits]
    for end in range(prompt + 1, ids.shape[1] + 1):
        logits, past = session.run(ids[:, end - 1 : end], mask[:, :end], past)
        rows.append(logits)
    batch = np.concatenate(rows, axis=1)
    for row, count in enumerate(padding):
        expected = reference(checkpoint, ids[row : row + 1, count:])[0]
        assert relative_error(batch[row, count:], expected) < OTHER_RUNTIME


@pytest.mark.parametrize("prompt", [1, 5])
def test_steps_through_the_cache_equal_prefill(fp32: Session, prompt: int) -> None:
    ids = random_ids(2, 24)
    expected = fp32.all_logits(ids)
    mask = np.ones_like(ids)
    logits, past = fp32.run(ids[:, :prompt], mask[:, :prompt], fp32.empty(2))
    assert relative_error(logits, expected[:, :prompt]) < REORDERED_FLOAT32
    for end in range(prompt + 1, ids.shape[1] + 1):
        logits, past = fp32.run(ids[:, end - 1 : end], mask[:, :end], past)
        assert relative_error(logits[:, 0], expected[:, end - 1]) < REORDERED_FLOAT32


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_left_padded_rows_equal_unpadded_ones(tiny: Path, dtype: str, graph: str) -> None:
    artifact = export_tiny(tiny, "onnx", dtype, tiny.parent, graph=graph)
    session = Session(next((artifact.path / "onnx").glob("*.onnx")))
    tolerance = {"fp32": REORDERED_FLOAT32, "fp16": ROUNDED["float16"]}[dtype]
    ids, padding, prompt = random_ids(3, 20), (0, 3, 15), 16
    mask = np.ones_like(ids)
    for row, count in enumerate(padding):
        mask[row, :count] = 0
    logits, past = session.run(ids[:, :prompt], mask[:, :prompt], session.empty(3))
    rows = [logits]
    for end in range(prompt + 1, ids.shape[1] + 1):
        logits, past = session.run(ids[:, end - 1 : end], mask[:, :end], past)
        rows.append(logits)
    padded = np.concatenate(rows, axis=1)
    assert np.isfinite(padded).all()
    for row, count in enumerate(padding):
        alone = session.all_logits(ids[row : row + 1, count:])
        assert relative_error(padded[row, count:], alone[0]) < tolerance


@pytest.mark.parametrize(("keep", "kept"), [(1, 1), (3, 3), (0, 12), (12, 12), (99, 12)])
def test_num_logits_to_keep_keeps_the_last_rows(fp32: Session, keep: int, kept: int) -> None:
    ids = random_ids(2, 12)
    logits, _ = fp32.run(ids, np.ones_like(ids), fp32.empty(2), keep)
    expected = fp32.all_logits(ids)[:, -kept:]
    assert logits.shape == expected.shape
    assert relative_error(logits, expected) < REORDERED_FLOAT32


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_interface_is_what_transformersjs_and_optimum_feed(tiny: Path, graph: str) -> None:
    artifact = export_tiny(tiny, "onnx", "fp32", tiny.parent, graph=graph)
    cache = ["batch_size", 2, "past_sequence_length", 16]
    for folder, extra in (("onnx", {"num_logits_to_keep": []}), (".", {})):
        session = Session(artifact.path / folder / "model.onnx")
        shapes = {name: item.shape for name, item in session.inputs.items()}
        assert shapes == {
            "input_ids": ["batch_size", "sequence_length"],
            "attention_mask": ["batch_size", "total_sequence_length"],
            **{f"past_key_values.{n}.{kind}": cache for n in range(3) for kind in ("key", "value")},
            **extra,
        }
        outputs = [item.name for item in session.session.get_outputs()]
        assert outputs[:3] == ["logits", "present.0.key", "present.0.value"]
