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

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes import weights
from runtimes.formats import dequantise
from runtimes.weights import stored
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


def mlc_groups(dtype: type, size: int = 32, middle: int = 7) -> Expected:
    """The format's formula in NumPy's float16 or float32; the last group may be padded."""

    def expected(value: np.ndarray) -> np.ndarray:
        cast = value.astype(dtype)
        if value.ndim == 1:
            return cast.astype(np.float32)
        rows, width = value.shape
        groups = np.pad(cast, [(0, 0), (0, -width % size)]).reshape(rows, -1, size)
        scale = np.abs(groups).max(-1, keepdims=True) / dtype(middle)
        codes = np.clip(np.rint(groups / scale + dtype(middle)), 0, 2 * middle)
        if dtype is np.float32:  # on disk, scales are bfloat16
            scale = through(ml_dtypes.bfloat16)(scale)
        values = (codes - dtype(middle)) * scale
        return values.astype(np.float32).reshape(rows, -1)[:, :width]

    return expected


through_mlc_groups = mlc_groups(np.float16)
through_3_bit_groups = mlc_groups(np.float16, size=40, middle=3)


def through_q4f32(value: np.ndarray) -> np.ndarray:
    """Norms are bfloat16 on disk."""
    whole = mlc_groups(np.float32)(value)
    return through(ml_dtypes.bfloat16)(whole) if value.ndim == 1 else whole


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
    ("mlc", "q0bf16", through(ml_dtypes.bfloat16)),
    ("mlc", "q4f16_0", through_mlc_groups),
    ("mlc", "q4f16_1", through_mlc_groups),
    ("mlc", "q4f32_1", through_q4f32),
    ("mlc", "q3f16_0", through_3_bit_groups),
    ("mlc", "q3f16_1", through_3_bit_groups),
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
    tmp_path: Path,
    form: str,
    variant: str,
    expected: Expected,
    changes: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "ROWS", 48)  # so that these small matrices too are read in parts
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
    for variant, expected in (("q4f16_1", through_mlc_groups), ("q3f16_0", through_3_bit_groups)):
        tensors = dequantise(export_tiny(folder, "mlc", variant, tmp_path))
        for name, value in load_file(folder / "model.safetensors").items():
            np.testing.assert_array_equal(tensors[name], expected(value), err_msg=name)


def test_q4f16_2_reads_groups_and_plain_matrices(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **UNTIED)
    tensors = dequantise(export_tiny(folder, "mlc", "q4f16_2", tmp_path))
    for name, value in load_file(folder / "model.safetensors").items():
        expected = through_mlc_groups if "_proj" in name else through(np.float16)
        np.testing.assert_array_equal(tensors[name], expected(value), err_msg=name)


def test_q4bf16_1_comes_back_within_half_a_step_and_bfloat16s_rounding(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = dequantise(export_tiny(folder, "mlc", "q4bf16_1", tmp_path))
    for name, value in load_file(folder / "model.safetensors").items():
        rounded = through(ml_dtypes.bfloat16)(value)
        if value.ndim == 1:
            np.testing.assert_array_equal(tensors[name], rounded)
            continue
        peak = np.abs(rounded.reshape(len(value), -1, 32)).max(-1)
        steps = np.repeat(peak / 7, 32, axis=1)
        # Scale and result each lose up to 2^-9 of at most 7 steps.
        assert (np.abs(tensors[name] - rounded) <= steps * (0.5 + 14 * 2**-9)).all(), name


def test_raw_float32_comes_back_exactly(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = dequantise(export_tiny(folder, "mlc", "q0f32", tmp_path, raw_f32=True))
    for name, value in load_file(folder / "model.safetensors").items():
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)


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
        dict(dequantise(artifact))


@pytest.mark.parametrize(("form", "variant"), [("gguf", "f16"), ("onnx", "fp16")])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str, variant: str) -> None:
    artifact = exported(tmp_path, form, variant)
    largest = max(artifact.path.rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read"):
        dict(dequantise(artifact))


def test_readers_share_no_code_with_the_exporters() -> None:
    folder = Path(weights.__file__).parent
    imported = {
        node.module or ""
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
    }
    assert imported
    assert not {name for name in imported if name.split(".")[0] == "export"}
