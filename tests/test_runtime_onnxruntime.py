"""ONNX Runtime adapter: left padding, limits, and refusal of graphs that are no decoders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from runtimes.onnxruntime import BRANCH, OnnxRuntime, open_runtime
from tests.exported import export_tiny
from tests.merged import merge
from tests.tiny import VOCAB, make_checkpoint
from tests.tolerance import ROUNDED, relative_error

pytestmark = pytest.mark.numbers

CONTEXT = 64


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("onnx")
    checkpoint = make_checkpoint(root / "checkpoint", max_position_embeddings=CONTEXT)
    return export_tiny(checkpoint, "onnx", request.param, root)


@pytest.fixture(scope="module")
def runtime(artifact: Artifact) -> OnnxRuntime:
    return open_runtime(artifact, 2)


def damaged(artifact: Artifact, folder: Path) -> tuple[Artifact, Path]:
    """A copy to damage, and the path of its graph."""
    shutil.copytree(artifact.path, folder)
    (graph,) = (folder / "onnx").glob("*.onnx")
    return open_artifact(folder), graph


def test_both_graphs_of_an_artifact_compute_the_same(
    artifact: Artifact, runtime: OnnxRuntime
) -> None:
    ids = list(range(1, 30))
    other = open_runtime(artifact, 2, folder=".")
    assert np.array_equal(other.logits(ids), runtime.logits(ids))
    assert relative_error(other.start(ids), runtime.start(ids)) < ROUNDED["float16"]


def test_a_folder_without_a_graph_is_refused(artifact: Artifact) -> None:
    with pytest.raises(InputError, match=r"expected one file \*\.onnx, found 0"):
        open_runtime(artifact, 1, folder="elsewhere")


def test_a_graph_that_loads_but_cannot_be_run_is_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    copy, path = damaged(artifact, tmp_path / "copy")
    model = onnx.load(path, load_external_data=False)
    (end,) = (item for item in model.graph.initializer if item.name == "one_int32")
    end.CopyFrom(onnx.numpy_helper.from_array(np.array([-1000], np.int32), end.name))
    onnx.save(model, path)
    with pytest.raises(InputError, match=f"{path.name}: ONNX Runtime cannot run it: "):
        open_runtime(copy, 1).logits([1, 2, 3])


def test_a_merged_decoder_reads_on_with_its_cache_token_by_token(
    artifact: Artifact, runtime: OnnxRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, path = damaged(artifact, tmp_path / "copy")
    merge(path, path)
    merged = open_runtime(copy, 1)
    assert (merged.vocabulary, merged.chunk) == (VOCAB, CONTEXT)
    fed: list[tuple[int, bool]] = []
    run = merged._session.run_with_ort_values

    class Watched:
        def run_with_ort_values(self, outputs: list[str], feeds: dict[str, Any]) -> Any:
            fed.append((feeds["input_ids"].shape()[1], bool(feeds[BRANCH].numpy()[0])))
            return run(outputs, feeds)

    monkeypatch.setattr(merged, "_session", Watched())
    monkeypatch.setattr(merged, "chunk", 8)
    ids = list(range(1, 12))
    error = relative_error(merged.logits(ids), runtime.logits(ids))
    assert error < ROUNDED["float16"]
    assert fed == [(8, False), (1, True), (1, True), (1, True)]


def test_left_padded_rows_equal_the_rows_alone(runtime: OnnxRuntime) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, VOCAB, count).tolist() for count in (1, 13, 5, 13)]
    for ids, padded in zip(rows, runtime.padded_logits(rows), strict=True):
        alone = runtime.logits(ids)
        assert padded.shape == alone.shape
        assert padded.dtype == np.float32
        assert relative_error(padded, alone) < ROUNDED["float16"]


def test_an_empty_row_is_refused(runtime: OnnxRuntime) -> None:
    with pytest.raises(ValueError, match="empty"):
        runtime.padded_logits([[1], []])


@pytest.mark.parametrize("ids", [[VOCAB], [-1], [1, 2, VOCAB + 7]])
def test_ids_outside_the_vocabulary_are_refused(runtime: OnnxRuntime, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="token ids"):
        runtime.logits(ids)


def test_a_sequence_longer_than_the_context_is_refused(runtime: OnnxRuntime) -> None:
    with pytest.raises(ValueError, match=f"at most {CONTEXT}"):
        runtime.start([1] * (CONTEXT + 1))
    runtime.start([1] * CONTEXT)
    with pytest.raises(ValueError, match=f"at most {CONTEXT}"):
        runtime.step(1)


def test_a_step_needs_a_sequence(artifact: Artifact) -> None:
    with pytest.raises(ValueError, match="before start"):
        open_runtime(artifact, 1).step(1)


def test_a_truncated_graph_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    copy, graph = damaged(artifact, tmp_path / "copy")
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"\.onnx: ONNX Runtime cannot load it") as caught:
        open_runtime(copy, 1)
    assert "\n" not in str(caught.value)


def test_a_graph_without_a_cache_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    copy, graph = damaged(artifact, tmp_path / "copy")
    value = onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, [1, "n"])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.INT64, [1, "n"])
    node = onnx.helper.make_node("Identity", ["input_ids"], ["logits"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "plain", [value], [out]),
        opset_imports=[onnx.helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.save(model, graph)
    with pytest.raises(InputError, match="not a decoder with a KV cache"):
        open_runtime(copy, 1)


def test_a_missing_config_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    copy, _ = damaged(artifact, tmp_path / "copy")
    (copy.path / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        open_runtime(copy, 1)
