"""The readers give back what was exported: exactly, or as the format's own arithmetic rounds it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from safetensors.numpy import load_file

from export.artifact import Artifact
from export.errors import InputError
from runtimes import weights
from runtimes.weights import dequantise
from tests.exported import export_tiny
from tests.tiny import FAMILIES, make_checkpoint

Expected = Callable[[np.ndarray], np.ndarray]


def through(dtype: type) -> Expected:
    return lambda value: value.astype(dtype).astype(np.float32)


def through_ggml(kind: GGMLQuantizationType) -> Expected:
    """Matrices through llama.cpp's own NumPy quantiser, norms untouched."""

    def expected(value: np.ndarray) -> np.ndarray:
        if value.ndim == 1:
            return value
        return quants.dequantize(quants.quantize(value, kind), kind).reshape(value.shape)

    return expected


def through_ggml_float(dtype: type) -> Expected:
    """llama.cpp keeps one-dimensional tensors in float32."""
    return lambda value: value if value.ndim == 1 else through(dtype)(value)


def through_mlc_groups(value: np.ndarray) -> np.ndarray:
    """4 bits, groups of 32, float16: the format's formula on whole groups, in NumPy's float16."""
    halves = value.astype(np.float16)
    if value.ndim == 1:
        return halves.astype(np.float32)
    groups = halves.reshape(len(value), -1, 32)
    scale = np.abs(groups).max(-1, keepdims=True) / np.float16(7)
    codes = np.clip(np.rint(groups / scale + np.float16(7)), 0, 14)
    return ((codes - np.float16(7)) * scale).astype(np.float32).reshape(value.shape)


def through_onnx_blocks(value: np.ndarray) -> np.ndarray:
    """8 bits, blocks of 32: the format's formula on whole blocks."""
    if value.ndim == 1:
        return value
    blocks = np.pad(value, ((0, 0), (0, -value.shape[1] % 32))).reshape(len(value), -1, 32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scale = -peak / np.float32(128)
    codes = np.clip(np.floor(blocks * (1 / scale) + np.float32(128.5)), 0, 255)
    return ((codes - 128) * scale).reshape(len(value), -1)[:, : value.shape[1]]


CASES: list[tuple[str, str, Expected]] = [
    ("gguf", "f32", through(np.float32)),
    ("gguf", "f16", through_ggml_float(np.float16)),
    ("gguf", "bf16", through_ggml_float(ml_dtypes.bfloat16)),
    ("gguf", "q8_0", through_ggml(GGMLQuantizationType.Q8_0)),
    ("mlc", "q0f16", through(np.float16)),
    ("mlc", "q0f32", through(ml_dtypes.bfloat16)),
    ("mlc", "q4f16_1", through_mlc_groups),
    ("onnx", "fp32", through(np.float32)),
    ("onnx", "fp16", through(np.float16)),
    ("onnx", "q8", through_onnx_blocks),
]
TIED = {"tie_word_embeddings": True}
UNTIED = {"tie_word_embeddings": False, "num_key_value_heads": 4, "head_dim": 32}


@pytest.mark.parametrize(
    ("form", "variant", "expected"), CASES, ids=[f"{form} {variant}" for form, variant, _ in CASES]
)
@pytest.mark.parametrize("changes", [TIED, UNTIED], ids=["tied grouped heads", "untied"])
def test_every_weight_comes_back_under_its_checkpoint_name(
    tmp_path: Path, form: str, variant: str, expected: Expected, changes: dict[str, object]
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **changes)
    source = load_file(folder / "model.safetensors")
    tensors = dequantise(export_tiny(folder, form, variant, tmp_path))
    assert tensors.keys() == source.keys()
    for name, value in source.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], expected(value), err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["gguf", "onnx"])
def test_every_parameter_of_every_family_comes_back(tmp_path: Path, form: str, family: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    tensors = dequantise(export_tiny(folder, form, "fp32", tmp_path))
    source = {
        name: value
        for path in folder.glob("*.safetensors")
        for name, value in load_file(path).items()
    }
    assert tensors.keys() == source.keys()
    for name, value in source.items():
        np.testing.assert_array_equal(tensors[name], value.astype(np.float32), err_msg=name)


@pytest.mark.parametrize("variant", ["q4_0", "q4_1"])
def test_four_bit_gguf_linears_are_llama_cpps(tmp_path: Path, variant: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = dequantise(export_tiny(folder, "gguf", variant, tmp_path))
    expected = through_ggml(GGMLQuantizationType[variant.upper()])
    for name, value in load_file(folder / "model.safetensors").items():
        if "_proj" in name:
            np.testing.assert_array_equal(tensors[name], expected(value), err_msg=name)


def test_the_padding_of_a_last_group_is_cut_off(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", hidden_size=72, intermediate_size=100)
    tensors = dequantise(export_tiny(folder, "mlc", "q4f16_1", tmp_path))
    for name, value in load_file(folder / "model.safetensors").items():
        width = value.shape[-1]
        padded = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, -width % 32)])
        np.testing.assert_array_equal(
            tensors[name], through_mlc_groups(padded)[..., :width], err_msg=name
        )


def exported(tmp_path: Path, form: str, variant: str) -> Artifact:
    return export_tiny(make_checkpoint(tmp_path / "checkpoint"), form, variant, tmp_path)


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    artifact = exported(tmp_path, "mlc", "q0f16")
    shard = artifact.path / "params_shard_0.bin"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"params_shard_0\.bin: size or MD5"):
        dequantise(artifact)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    artifact = exported(tmp_path, "mlc", "q0f16")
    (artifact.path / "params_shard_0.bin").unlink()
    with pytest.raises(InputError, match=r"params_shard_0\.bin"):
        dequantise(artifact)


def test_an_unknown_mlc_scheme_is_refused(tmp_path: Path) -> None:
    artifact = exported(tmp_path, "mlc", "q4f16_1")
    config = artifact.path / "mlc-chat-config.json"
    changed = {**json.loads(config.read_text()), "quantization": "q4f16_9"}
    config.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="unknown scheme"):
        dequantise(artifact)


@pytest.mark.parametrize(("form", "variant"), [("gguf", "f16"), ("onnx", "fp16")])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str, variant: str) -> None:
    artifact = exported(tmp_path, form, variant)
    largest = max(artifact.path.rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read"):
        dequantise(artifact)


def test_readers_share_no_code_with_the_exporters() -> None:
    allowed = {"export.artifact", "export.errors"}
    folder = Path(weights.__file__).parent
    imported = {
        node.module or ""
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
    }
    assert {name for name in imported if name.split(".")[0] == "export"} <= allowed
