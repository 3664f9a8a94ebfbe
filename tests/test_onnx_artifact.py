from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from edgeproof.artifact import Artifact, ModelIdentity
from edgeproof.errors import InputError
from edgeproof.families.rope import frequencies
from export import job
from export.checkpoint import open_checkpoint
from export.onnx import FORMAT, folder
from export.onnx.graph import StoredTensor
from export.onnx.rotary import cosines, sines
from export.onnx.weights import ALIGNMENT, place
from export.sources import Source
from tests.exported import export_tiny
from tests.tiny import FAMILIES, make_checkpoint

pytestmark = pytest.mark.numbers

FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx"}
ROTARY_SHA256 = "f853a836073f5466fa4b0c247678cc7b2759402113a2f8ed385632615946315a"
DTYPES = {"fp32": np.float32, "fp16": np.float16}
KINDS: dict[str, dict[str, object]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "num_key_value_heads": 4},
}


@pytest.fixture(scope="module", params=[(kind, dtype) for kind in KINDS for dtype in FILES])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Artifact, str]:
    kind, dtype = request.param
    root = tmp_path_factory.mktemp(f"{kind}-{dtype}")
    checkpoint = make_checkpoint(root / "checkpoint", **KINDS[kind])
    return checkpoint, export_tiny(checkpoint, "onnx", dtype, root), dtype


def initializers(path: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}


def expected_weights(checkpoint: Path) -> dict[str, np.ndarray]:
    source = load_file(checkpoint / "model.safetensors")
    expected = {}
    for name, value in source.items():
        if name.endswith("q_proj.weight"):
            parts = [
                source[name.replace("q_proj", kind)] for kind in ("q_proj", "k_proj", "v_proj")
            ]
            expected[name.replace("q_proj", "qkv_proj")] = np.concatenate(parts).T
        elif "layers" in name and value.ndim == 2:
            expected[name] = value.T
        else:
            expected[name] = value
    return {
        name: value
        for name, value in expected.items()
        if not name.endswith(("k_proj.weight", "v_proj.weight")) or "qkv" in name
    }


def test_every_stored_value_is_the_source_value_rounded_once(
    exported: tuple[Path, Artifact, str],
) -> None:
    checkpoint, artifact, dtype = exported
    for graph in (artifact.path / FILES[dtype], artifact.path / "onnx" / FILES[dtype]):
        found = initializers(graph)
        for name, value in expected_weights(checkpoint).items():
            np.testing.assert_array_equal(found.pop(name), value.astype(DTYPES[dtype]), name)
        assert {name for name in found if "proj" in name or "embed" in name} == set()


def test_graphs_pass_the_full_checker_and_every_value_has_a_type(
    exported: tuple[Path, Artifact, str],
) -> None:
    _, artifact, dtype = exported
    for path in (artifact.path / FILES[dtype], artifact.path / "onnx" / FILES[dtype]):
        check_graph(path)


@pytest.mark.parametrize("family", ["biases", "qwen2", "qwen3"])
def test_graphs_of_other_families_pass_it_too(tmp_path: Path, family: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    artifact = export_tiny(checkpoint, "onnx", "fp16", tmp_path)
    check_graph(artifact.path / "onnx" / FILES["fp16"])


def check_graph(path: Path) -> None:
    onnx.checker.check_model(path, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(
        onnx.load(path, load_external_data=False), strict_mode=True, data_prop=True
    ).graph
    known = {value.name for value in [*inferred.value_info, *inferred.output]}
    assert {name for node in inferred.node for name in node.output if name} <= known


def test_weights_are_stored_once_and_counted(exported: tuple[Path, Artifact, str]) -> None:
    checkpoint, artifact, dtype = exported
    parameters = open_checkpoint(checkpoint).parameter_count
    data = artifact.path / "onnx" / f"{FILES[dtype]}_data"
    tensors = len(expected_weights(checkpoint))
    tables = 256 * 16 * np.dtype(DTYPES[dtype]).itemsize
    weights = parameters * np.dtype(DTYPES[dtype]).itemsize
    assert artifact.manifest.weights["bytes"] == weights
    assert weights <= data.stat().st_size < weights + tables + (tensors + 2) * ALIGNMENT
    assert artifact.manifest.effective_bpw == 8 * np.dtype(DTYPES[dtype]).itemsize


def test_the_folder_is_what_transformersjs_and_optimum_load(
    exported: tuple[Path, Artifact, str],
) -> None:
    checkpoint, artifact, dtype = exported
    file = FILES[dtype]
    files = {item.path for item in artifact.manifest.outputs}
    assert files == {
        file,
        f"onnx/{file}",
        f"onnx/{file}_data",
        "config.json",
        "genai_config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not any(path.is_symlink() for path in artifact.path.rglob("*"))
    config = json.loads((artifact.path / "config.json").read_text())
    extra = config.pop("transformers.js_config")
    assert config == json.loads((checkpoint / "config.json").read_text())
    assert extra["use_external_data_format"] == {file: 1}
    assert extra["kv_cache_dtype"] == {dtype: np.dtype(DTYPES[dtype]).name}
    made = {file, f"onnx/{file}", f"onnx/{file}_data", "config.json", "genai_config.json"}
    for name in files - made:
        assert (artifact.path / name).read_bytes() == (checkpoint / name).read_bytes()


def test_the_bytes_depend_on_the_content_only(tmp_path: Path) -> None:
    hashes = []
    for name in ("first", "second elsewhere"):
        checkpoint = make_checkpoint(tmp_path / name / "checkpoint")
        artifact = export_tiny(checkpoint, "onnx", "fp16", tmp_path / name / "out")
        hashes.append(artifact.manifest.outputs)
    assert hashes[0] == hashes[1]


def test_the_rotary_tables_have_the_same_bits_on_every_machine() -> None:
    digest = hashlib.sha256()
    for function in (cosines, sines):
        for block in function(8192, frequencies(64, 100000.0)):
            digest.update(block.data)
    assert digest.hexdigest() == ROTARY_SHA256


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_the_rotary_tables_are_cosines_and_sines(theta: float) -> None:
    exact = 1 / theta ** (np.arange(0, 32, 2) / 32)
    angles = np.arange(5000)[:, None] * exact
    for function, truth in ((cosines, np.cos(angles)), (sines, np.sin(angles))):
        # Angles are rounded to float32 first, as PyTorch does: 5000 × 2⁻²⁴ at most.
        found = np.concatenate(list(function(5000, frequencies(32, theta))))
        assert np.abs(found - truth).max() < 1e-3
        assert np.abs(found[:64] - truth[:64]).max() < 1e-5


def test_a_weight_too_large_for_fp16_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*100000"):
        export_tiny(checkpoint, "onnx", "fp16", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*fp16*")] == []
    assert export_tiny(checkpoint, "onnx", "fp32", tmp_path / "out").path.is_dir()


def test_a_head_size_that_the_operator_refuses_is_refused_here(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", head_dim=24)
    with pytest.raises(InputError, match="head_dim = 24"):
        export_tiny(checkpoint, "onnx", "fp32", tmp_path / "out")


def test_large_weights_are_split_with_the_names_that_transformersjs_asks_for() -> None:
    def tensor(name: str, size: int) -> StoredTensor:
        return StoredTensor(name, (size,), np.dtype(np.uint8), lambda checkpoint: iter([]))

    sizes = {"a": 5000, "b": 9000, "c": 9000, "huge": 50000, "d": 10}
    placements = place([tensor(*item) for item in sizes.items()], "m.onnx_data", 20000)
    assert [(item.file, item.offset) for item in placements] == [
        ("m.onnx_data", 0),
        ("m.onnx_data", 8192),
        ("m.onnx_data_1", 0),
        ("m.onnx_data_2", 0),
        ("m.onnx_data_3", 0),
    ]


def test_a_split_export_has_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    whole = export_tiny(checkpoint, "onnx", "fp32", tmp_path / "whole")
    monkeypatch.setattr(folder, "place", lambda tensors, file: place(tensors, file, 200_000))
    split = export_tiny(checkpoint, "onnx", "fp32", tmp_path / "split")
    chunks = sorted(path.name for path in (split.path / "onnx").glob("*_data*"))
    config = json.loads((split.path / "config.json").read_text())["transformers.js_config"]
    assert config["use_external_data_format"] == {"model.onnx": len(chunks)}
    assert len(chunks) > 2
    assert chunks[:2] == ["model.onnx_data", "model.onnx_data_1"]
    one, other = (initializers(item.path / "onnx" / "model.onnx") for item in (whole, split))
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_q016_is_another_name_of_fp16(tmp_path: Path) -> None:
    assert FORMAT.variant("q016") is FORMAT.variant("fp16")
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    source = Source(path=checkpoint, label="tiny")
    identity = ModelIdentity("m", None, None, 1, ())
    folder = job.Job(
        source, open_checkpoint(checkpoint), identity, FORMAT, FORMAT.variant("q016")
    ).folder(tmp_path)
    assert folder.parts[-3:] == ("tiny", "onnx", "fp16")
