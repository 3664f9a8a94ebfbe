"""The MLX exporter end to end on tiny checkpoints: the folder, read by other libraries too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.families import read_config
from export.checkpoint import open_checkpoint
from export.checkpoint.safetensors_writer import PlannedTensor
from export.mlx import FORMAT
from export.mlx.definitions import stated_keys
from export.mlx.files import plan_files
from runtimes.audit.mlx import inspect
from runtimes.formats import dequantise
from runtimes.parity.localise.contents import compare_contents
from runtimes.parity.localise.metadata import compare_metadata
from tests.exported import export_tiny
from tests.recovered import make_recovered, mixed
from tests.tiny import FAMILIES, GEMMA3, OTHERS, PHI3, change_json, config, make_checkpoint

pytestmark = pytest.mark.numbers

ALL = {**FAMILIES, **OTHERS}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}


def said(artifact: Artifact, name: str = "config.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact.path / name).read_text())
    return found


def differences(artifact: Artifact, folder: Path) -> list[str]:
    """Tensors that the files give back with another value."""
    found, weights = dequantise(artifact), load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    return [name for name in weights if not np.array_equal(found[name], weights[name])]


@pytest.mark.parametrize("family", ALL)
def test_floats_are_the_checkpoints_and_every_key_is_accounted_for(
    tmp_path: Path, family: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **ALL[family])
    artifact = export_tiny(folder, "mlx", "f32", tmp_path)
    weights, checkpoint = dequantise(artifact), open_checkpoint(folder)
    assert weights.keys() == {item.name for item in checkpoint.parameters}
    for item in checkpoint.parameters:
        rows = checkpoint.first_rows(item.name, 1 << 20)
        np.testing.assert_array_equal(weights[item.name], rows.astype(np.float32))
    assert compare_contents(artifact, folder) == ()
    assert compare_metadata(artifact, folder) == ()


def test_the_folder_is_mlx_lms(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlx", "q4", tmp_path, group_size="32")
    names = {path.name for path in artifact.path.iterdir()}
    index = "model.safetensors.index.json"
    assert names == {"config.json", "edgeproof.json", "model.safetensors", index, *TOKENIZER}
    quantization = {"group_size": 32, "bits": 4, "mode": "affine"}
    assert said(artifact)["quantization"] == said(artifact)["quantization_config"] == quantization
    with safe_open(artifact.path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "mlx"}
        keys = set(file.keys())
        embedding = [file.get_tensor(f"model.embed_tokens.{part}") for part in
                     ("weight", "scales", "biases")]  # fmt: skip
    assert [(part.shape, part.dtype.name) for part in embedding] == [
        ((384, 8), "uint32"), ((384, 2), "float32"), ((384, 2), "float32"),
    ]  # fmt: skip
    assert said(artifact, index)["weight_map"] == dict.fromkeys(keys, "model.safetensors")
    assert "lm_head.weight" not in keys
    assert "model.norm.weight" in keys


@pytest.mark.parametrize(
    ("stated", "stored", "expected"),
    [("bfloat16", "F32", "bfloat16"), ("float16", "BF16", "float16"), (None, "BF16", "bfloat16")],
)
def test_scales_are_in_the_models_dtype(
    tmp_path: Path, stated: str | None, stored: str, expected: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", dtype=stored, torch_dtype=stated)
    artifact = export_tiny(folder, "mlx", "q8", tmp_path)
    assert said_dtypes(artifact) == {"U32", {"bfloat16": "BF16", "float16": "F16"}[expected]}


def said_dtypes(artifact: Artifact) -> set[str]:
    data = (artifact.path / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {item["dtype"] for name, item in header.items() if name != "__metadata__"}


def test_an_option_chooses_the_dtype(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlx", "q4", tmp_path, activations="float16")
    assert artifact.manifest.variant.name == "q4-float16"
    assert artifact.manifest.variant.facts.activations == "float16"
    assert said_dtypes(artifact) == {"U32", "F16"}


@pytest.mark.parametrize("named", [True, False])
def test_an_end_that_config_json_leaves_open_is_written(tmp_path: Path, named: bool) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", eos_token_id=None)
    if not named:
        change_json(folder / "generation_config.json", eos_token_id=None)
    artifact = export_tiny(folder, "mlx", "f32", tmp_path)
    assert said(artifact)["eos_token_id"] == 2
    assert compare_contents(artifact, folder) == ()


def test_rows_that_do_not_divide_stay_floats_and_are_told(tmp_path: Path) -> None:
    """As mlx_lm.convert leaves them: 160 inputs are no multiple of 64."""
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlx", "q4", tmp_path)
    (fallback,) = artifact.manifest.weights["fallbacks"]
    assert (fallback["tensors"], fallback["row"], fallback["stored"]) == (3, 160, "float32")
    assert said(artifact)["quantization"]["model.layers.0.mlp.down_proj"] is False
    name = "model.layers.0.mlp.down_proj.weight"
    weights = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(dequantise(artifact)[name], weights[name])


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3])
def test_no_value_is_off_by_more_than_a_step(tmp_path: Path, bits: int) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlx", f"q{bits}", tmp_path, group_size="32")
    found, weights = dequantise(artifact), load_file(folder / "model.safetensors")
    for name, values in weights.items():
        span = np.ptp(values.reshape(-1, 32), axis=1).max() if values.ndim == 2 else 0
        step = span / ((1 << bits) - 1)
        assert np.abs(found[name] - values).max() <= step


def test_microscaled_is_a_mode_of_its_own(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlx", "mxfp4", tmp_path)
    quantization = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    assert said(artifact)["quantization"] == quantization
    assert said_dtypes(artifact) == {"U32", "U8", "F32"}
    with safe_open(artifact.path / "model.safetensors", "np") as file:
        assert not [key for key in file.keys() if key.endswith("biases")]  # noqa: SIM118
        shapes = [file.get_tensor(f"model.embed_tokens.{part}").shape for part in
                  ("weight", "scales")]  # fmt: skip
    assert shapes == [(384, 8), (384, 2)]
    found, weights = dequantise(artifact), load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if values.ndim == 2:
            groups = values.reshape(-1, 32)
            off = np.abs(found[name].reshape(-1, 32) - groups)
            # Half of the widest gap, 4 … 6, where the peak is 3 … 6.
            assert (off <= np.abs(groups).max(axis=1, keepdims=True) / 3).all()
    assert compare_contents(artifact, folder) == ()
    assert inspect(artifact.path).stats.types.keys() == {"4-bit float", "float32"}


def test_a_recovered_checkpoint_keeps_every_value(tmp_path: Path) -> None:
    folder = make_recovered(tmp_path / "checkpoint", mixed)
    artifact = export_tiny(folder, "mlx", "auto", tmp_path)
    assert artifact.manifest.variant.name == "recovered"
    assert differences(artifact, folder) == []
    quantization = said(artifact)["quantization"]
    assert (quantization["bits"], quantization["group_size"]) == (8, 32)
    four = {"group_size": 32, "bits": 4, "mode": "affine"}
    assert quantization["model.layers.1.self_attn.k_proj"] == four
    assert quantization["model.embed_tokens"]["bits"] == 5
    assert said_dtypes(artifact) == {"U32", "F16"}


def test_a_recovered_checkpoint_has_the_weights_of_its_gguf_file(tmp_path: Path) -> None:
    """So what these weights lose is the same in llama.cpp and in MLX."""
    folder = make_recovered(tmp_path / "checkpoint", lambda name: "q4")
    mlx, gguf = (
        dequantise(export_tiny(folder, form, "auto", tmp_path)) for form in ("mlx", "gguf")
    )
    assert mlx.keys() == gguf.keys()
    for name in mlx:
        np.testing.assert_array_equal(mlx[name], gguf[name])


@pytest.mark.parametrize(("grid", "dtype"), [("q4", "q4"), ("q5", "q5"), ("q8", "q8")])
def test_what_lies_on_its_grid_already_is_stored_exactly(
    tmp_path: Path, grid: str, dtype: str
) -> None:
    folder = make_recovered(tmp_path / "checkpoint", lambda name: grid, record=False)
    checkpoint = open_checkpoint(folder)
    variant = FORMAT.variant(dtype, group_size="32")
    complete = FORMAT.complete_from_checkpoint(variant, checkpoint)
    assert complete.recipe.rounding.on_grid.tensors is None
    other = FORMAT.variant(dtype, group_size="32", activations="bfloat16")
    for rounded in (FORMAT.variant(dtype), other):
        assert FORMAT.complete_from_checkpoint(rounded, checkpoint) == rounded
    explicit = export_tiny(folder, "mlx", dtype, tmp_path, group_size="32", rounding="lattice")
    assert differences(explicit, folder) == []


def test_files_are_cut_at_the_limit() -> None:
    groups = [[PlannedTensor(f"{n}.{part}", np.dtype(np.float32), (10,)) for part in "ab"]
              for n in range(5)]  # fmt: skip
    assert [file.name for file in plan_files(groups, 400)] == ["model.safetensors"]
    files = plan_files(groups, 170)
    assert [list(file.groups) for file in files] == [[0, 1], [2, 3], [4]]
    assert files[1].name == "model-00002-of-00003.safetensors"
    assert [list(file.groups) for file in plan_files(groups, 1)] == [[n] for n in range(5)]


def test_several_files_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr("export.mlx.exporter.plan_files", lambda groups: plan_files(groups, 99_999))
    artifact = export_tiny(folder, "mlx", "f32", tmp_path)
    assert len(artifact.files(".safetensors")) > 2
    assert differences(artifact, folder) == []
    assert compare_contents(artifact, folder) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (PHI3, "MLX: architecture 'phi3' is not supported"),
        (GEMMA3, "MLX: architecture 'gemma3_text' is not supported"),
        ({**FAMILIES["qwen3"], "attention_bias": True}, "biases of linear layers"),
        ({**FAMILIES["qwen2"], "head_dim": 32}, "4 heads of 32 beside 64 channels"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "activation 'gelu_pytorch_tanh'"),
    ],
)
def test_what_mlx_lm_does_not_compute_is_refused(changes: dict[str, Any], message: str) -> None:
    plain = {key: value for key, value in changes.items() if key not in ("dtype", "shards")}
    raw = config(**plain)
    with pytest.raises(InputError, match=message):
        stated_keys(read_config(raw)[0], raw)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("f16", {"group_size": "32"}, "has no groups|have no groups"),
        ("f16", {"activations": "float32"}, "is that of float16"),
        ("f16", {"rounding": "search"}, "stores floats"),
        ("auto", {"group_size": "64"}, "has codes already"),
        ("q4", {"rounding": "nothing"}, "unknown method"),
        ("mxfp4", {"group_size": "64"}, "mxfp4 has groups of 32 only"),
        ("mxfp4", {"rounding": "lattice"}, "stores what lies on its grid as it is"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        FORMAT.variant(name, **options)


def test_code_of_strangers_is_left_out(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    change_json(folder / "config.json", model_file="evil.py", auto_map={"AutoModel": "evil.Model"})
    artifact = export_tiny(folder, "mlx", "f32", tmp_path)
    assert not {"model_file", "auto_map"} & said(artifact).keys()


def test_a_packing_that_the_weights_no_longer_have_is_left_out(tmp_path: Path) -> None:
    """mlx_lm would make packed layers of those that it names, and find no codes for them."""
    folder = make_checkpoint(tmp_path / "checkpoint")
    layer = {"model.layers.0.mlp.up_proj": {"group_size": 64, "bits": 4}}
    change_json(folder / "config.json", quantization={"group_size": 64, "bits": 4, **layer})
    assert "quantization" not in said(export_tiny(folder, "mlx", "bf16", tmp_path))


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlx", "q4", tmp_path)
    path = artifact.path / "model.safetensors"
    whole = path.read_bytes()
    for data in (
        b"",
        whole[:7],
        whole[:100],
        whole[:-1],
        b"\xff" * 64,
        whole.replace(b"U32", b"X32"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            dict(dequantise(artifact))
        assert "\n" not in str(caught.value)
        assert "model.safetensors" in str(caught.value)


def test_search_rounds_better(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    errors = []
    for rounding in (None, "search"):
        artifact = export_tiny(folder, "mlx", "q4", tmp_path, rounding=rounding)
        found = dequantise(artifact)
        errors.append(sum(float(np.square(found[n] - weights[n]).sum()) for n in weights))
    assert errors[1] < errors[0] * 0.97
