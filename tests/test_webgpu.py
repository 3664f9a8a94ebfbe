"""ONNX graphs on a real WebGPU implementation: all of it on the GPU, no overflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.errors import InputError
from runtimes.onnx_placement import computing_nodes
from runtimes.protocol import Runtime
from runtimes.registry import open_runtime
from tests.exported import export_tiny
from tests.tiny import VOCAB, make_checkpoint

pytest.importorskip("onnxruntime_ep_webgpu", reason="no WebGPU plugin: Python 3.11 or later has it")

from runtimes.lavapipe import lavapipe
from runtimes.webgpu.device import open_device
from tests.tolerance import FLOAT16_ON_GPU, relative_error

IDS = [1, 9, 300, 7, 41, 120, 3, 5]


@pytest.fixture(scope="module")
def artifact(webgpu: None, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("tiny")
    return export_tiny(make_checkpoint(root / "checkpoint"), "onnx", "fp16", root)


@pytest.fixture(scope="module")
def runtime(artifact: Artifact) -> Iterator[Runtime]:
    opened = open_runtime(artifact, 1, "webgpu")
    yield opened
    opened.close()


def test_float16_on_the_gpu_agrees_with_the_cpu_at_every_position(
    artifact: Artifact, runtime: Runtime
) -> None:
    expected = open_runtime(artifact, 1).logits(IDS)
    got = runtime.logits(IDS)
    assert got.shape == (len(IDS), VOCAB)
    assert got.dtype == np.float32
    assert relative_error(got, expected) < FLOAT16_ON_GPU
    assert not np.array_equal(got, expected)  # the same bits would mean: computed on the CPU
    assert runtime.name == "onnxruntime-webgpu"


def test_steps_through_the_kv_cache_equal_one_pass(runtime: Runtime) -> None:
    whole = runtime.logits(IDS)
    rows = [runtime.start(IDS[:5]), *(runtime.step(token) for token in IDS[5:])]
    assert relative_error(np.stack(rows), whole[4:]) < FLOAT16_ON_GPU


def test_left_padded_rows_equal_the_rows_alone(runtime: Runtime) -> None:
    rows = [IDS, IDS[:5]]
    for ids, padded in zip(rows, runtime.padded_logits(rows), strict=True):  # type: ignore[attr-defined]
        assert relative_error(padded, runtime.logits(ids)) < FLOAT16_ON_GPU


def test_a_graph_that_computes_on_the_cpu_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(artifact.path, folder)
    model = onnx.load(folder / "onnx" / "model_fp16.onnx", load_external_data=False)
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Hardmax", ["before"], ["logits"], name="on_cpu"))
    onnx.save(model, folder / "onnx" / "model_fp16.onnx")
    with pytest.raises(InputError, match=r"1 of .* nodes would run on the CPU.*: on_cpu"):
        open_runtime(open_artifact(folder), 1, "webgpu")


def test_every_constant_of_a_float16_graph_is_finite_in_float16(tmp_path: Path) -> None:
    artifact = export_tiny(make_checkpoint(tmp_path / "checkpoint"), "onnx", "fp16", tmp_path)
    folder = artifact.path / "onnx"
    graph = onnx.load(folder / "model_fp16.onnx", load_external_data=False).graph
    halves = [item for item in graph.initializer if item.data_type == TensorProto.FLOAT16]
    assert {"hidden_key_bias", "rotary.cosine"} < {item.name for item in halves}
    for item in halves:
        assert np.isfinite(numpy_helper.to_array(item, str(folder))).all(), item.name


def graph_of(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n"]),
    ]
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}{index}"
    return helper.make_graph(nodes, "test", inputs, [], [one])


def test_shapes_and_integers_may_be_computed_on_the_cpu() -> None:
    graph = graph_of(
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Concat", ["shape", "one"], ["longer"], axis=0),
        helper.make_node("Cast", ["ids"], ["mask"], to=TensorProto.FLOAT16),
    )
    assert computing_nodes(graph, ["Shape0", "Concat1", "Cast2"]) == []


def test_floats_may_not_be_computed_on_the_cpu() -> None:
    half = numpy_helper.from_array(np.array([0.5], np.float32))
    graph = graph_of(
        helper.make_node("Cast", ["ids"], ["mask"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["mask", "mask"], ["y"]),
        helper.make_node("ConstantOfShape", ["one"], ["z"], value=half),
        helper.make_node("Neg", ["z"], ["w"]),
        helper.make_node("Reshape", ["x", "one"], ["v"]),
    )
    names = [node.name for node in graph.node]
    assert computing_nodes(graph, names) == ["Mul1", "Neg3", "Reshape4"]
    assert computing_nodes(graph, ["inserted by a runtime"]) == ["inserted by a runtime"]


def test_a_machine_without_debian_packages_is_told_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lavapipe, "KEYRING", Path("/nonexistent"))
    with pytest.raises(InputError, match=r"no software GPU.*EDGEPROOF_VULKAN=system"):
        lavapipe.load_lavapipe()


def test_packages_other_than_the_pinned_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def download_something_else(command: list[str], folder: Path) -> None:
        if "download" in command:
            (folder / "mesa.deb").write_bytes(b"not Mesa")

    monkeypatch.setattr(lavapipe, "KEYRING", tmp_path)
    monkeypatch.setattr(lavapipe, "_run", download_something_else)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(InputError, match=r"not those of packages\.txt"):
        lavapipe.load_lavapipe()


def test_an_unknown_driver_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROOF_VULKAN", "nvidia")
    with pytest.raises(InputError, match="EDGEPROOF_VULKAN=nvidia: choose lavapipe or system"):
        open_device.__wrapped__()
