"""The MLC exporter end to end on tiny checkpoints, judged by TVM's own loader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.artifact import MANIFEST, Artifact, Precision
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint, open_checkpoint
from export.mlc import FORMAT
from export.mlc.parameters import mlc_targets
from export.mlc.schemes import FOUR_BITS, SCHEMES
from export.rounding import Evidence
from export.rounding.cast import BFLOAT16
from export.rounding.registry import METHODS, NEAREST
from export.targets import Target
from tests.exported import export_tiny
from tests.recorded_mlc import MD5, tail_checkpoint, whole_group_checkpoint
from tests.tiny import FAMILIES, LLAMA3_ROPE, make_checkpoint, write_weights

CONFIGS = ["mlc-chat-config.json", "tensor-cache.json", "ndarray-cache.json"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]


def source_tensors(folder: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def mlc_tensors(source: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters that MLC's Llama has: fused, in float32."""
    result = {name: value.astype(np.float32) for name, value in source.items()}
    for layer in {name.split("self_attn")[0] for name in source if "self_attn" in name}:
        for fused, parts in (("self_attn.qkv_proj", "qkv"), ("mlp.gate_up_proj", ("gate", "up"))):
            module = fused.split(".")[0]
            names = [f"{layer}{module}.{part}_proj.weight" for part in parts]
            result[f"{layer}{fused}.weight"] = np.concatenate([result.pop(name) for name in names])
    return result


def loaded(artifact: Artifact) -> dict[str, np.ndarray]:
    """Parameters as TVM loads them on the CPU."""
    tvm = pytest.importorskip("tvm")
    from tvm.contrib import tvmjs

    tensors, _ = tvmjs.load_tensor_cache(str(artifact.path), tvm.cpu())
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def test_tvm_loads_every_float16_weight_as_the_source_rounds(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = loaded(export_tiny(folder, "mlc", "q0f16", tmp_path))
    expected = mlc_tensors(source_tensors(folder))
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert tensors[name].dtype == np.float16
        np.testing.assert_array_equal(tensors[name], value.astype(np.float16), err_msg=name)


def test_float32_weights_come_back_rounded_to_bfloat16(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlc", "q0f32", tmp_path)
    tensors = loaded(artifact)
    for name, value in mlc_tensors(source_tensors(folder)).items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], value.astype(BFLOAT16).astype(np.float32))
    assert artifact.manifest.weights["types"].keys() == {"bfloat16"}
    assert artifact.manifest.effective_bpw == 16


@pytest.mark.parametrize("hidden", [64, 72], ids=["whole groups", "a padded last group"])
def test_four_bit_weights_dequantise_to_half_a_step(tmp_path: Path, hidden: int) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", hidden_size=hidden)
    artifact = export_tiny(folder, "mlc", "q4f16_1", tmp_path)
    tensors = loaded(artifact)
    for name, value in mlc_tensors(source_tensors(folder)).items():
        if value.ndim == 1:
            np.testing.assert_array_equal(tensors[name], value.astype(np.float16))
            continue
        module = name.removesuffix(".weight")
        words, scales = tensors[f"{module}.q_weight"], tensors[f"{module}.q_scale"]
        codes = (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15
        steps = np.repeat(scales.astype(np.float32), 32, axis=1)
        values = (codes.reshape(len(words), -1) - 7.0) * steps
        error = np.abs(values[:, : value.shape[1]] - value)
        assert (error <= 0.51 * steps[:, : value.shape[1]]).all(), name
    weights = artifact.manifest.weights
    assert weights["types"].keys() == {"q4f16_1", "float16"}
    stored = json.loads((artifact.path / "tensor-cache.json").read_text())["records"]
    assert weights["bytes"] == sum(shard["nbytes"] for shard in stored)


def test_sharded_untied_bfloat16_without_grouped_heads_exports_the_same_values(
    tmp_path: Path,
) -> None:
    changes = {"tie_word_embeddings": False, "num_key_value_heads": 4}
    folder = make_checkpoint(tmp_path / "checkpoint", dtype="BF16", shards=3, **changes)
    tensors = loaded(export_tiny(folder, "mlc", "q0f16", tmp_path))
    expected = mlc_tensors(source_tensors(folder))
    assert "lm_head.weight" in expected
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value.astype(np.float16), err_msg=name)


def test_blocks_of_a_large_embedding_join_without_a_seam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    whole = export_tiny(folder, "mlc", "q4f16_1", tmp_path / "whole")
    monkeypatch.setattr("export.checkpoint.checkpoint.BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr("export.mlc.exporter.CACHE_ELEMENTS", 300)
    blocks = export_tiny(folder, "mlc", "q4f16_1", tmp_path / "blocks")
    assert blocks.manifest.outputs == whole.manifest.outputs


def test_scales_are_those_of_the_whole_matrix(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = loaded(export_tiny(folder, "mlc", "q4f16_1", tmp_path))
    weight = source_tensors(folder)["model.layers.1.mlp.down_proj.weight"].astype(np.float16)
    scales = METHODS[NEAREST].round(weight, FOUR_BITS, Evidence("w")).scales
    stored = tensors["model.layers.1.mlp.down_proj.q_scale"]
    np.testing.assert_array_equal(stored, scales.reshape(stored.shape))


@pytest.mark.parametrize("scheme", ["q0f16", "q4f16_0", "q4f16_1"])
def test_a_targets_function_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """As a checkpoint is exported whose values are what the function gives."""
    folder = make_checkpoint(tmp_path / "checkpoint")
    changed = make_checkpoint(tmp_path / "changed")
    tensors = source_tensors(folder)
    kinds = ("down_proj.weight", "input_layernorm.weight", "embed_tokens.weight")
    write_weights(
        changed,
        {
            name: value[::-1] * 2 if name.endswith(kinds) else value
            for name, value in tensors.items()
        },
    )
    expected = export_tiny(changed, "mlc", scheme, tmp_path / "expected")

    def targets(checkpoint: Checkpoint) -> list[Target]:
        return [
            replace(target, transform=lambda arrays: arrays[0][::-1] * 2)
            if target.name.endswith(kinds)
            else target
            for target in mlc_targets(checkpoint)
        ]

    monkeypatch.setattr("export.mlc.exporter.mlc_targets", targets)
    found = export_tiny(folder, "mlc", scheme, tmp_path / "found")
    assert found.manifest.outputs == expected.manifest.outputs


def test_fused_weights_are_streamed_source_by_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a block of rows is in memory, also of a matrix that several make up."""
    folder = make_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr("export.checkpoint.checkpoint.BLOCK_ELEMENTS", 640)
    largest = 0
    blocks = Checkpoint.blocks

    def watched(self: Checkpoint, target: Target) -> Iterator[np.ndarray]:
        nonlocal largest
        for block in blocks(self, target):
            largest = max(largest, block.size)
            yield block

    monkeypatch.setattr(Checkpoint, "blocks", watched)
    export_tiny(folder, "mlc", "q4f16_1", tmp_path)
    assert largest <= 640


def test_parameters_come_in_the_order_in_which_mlc_llm_loads_them(tmp_path: Path) -> None:
    single = open_checkpoint(make_checkpoint(tmp_path / "single", num_hidden_layers=11))
    names = [target.name for target in mlc_targets(single)]
    assert names[:3] == [
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.mlp.down_proj.weight",
    ]
    assert names.index("model.layers.10.mlp.down_proj.weight") < names.index(
        "model.layers.2.mlp.down_proj.weight"
    )
    # A sharded checkpoint is loaded in the order of its index, shard by shard.
    folder = make_checkpoint(tmp_path / "sharded", shards=2)
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    reversed_map = {"weight_map": dict(reversed(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(reversed_map))
    sharded = [target.name for target in mlc_targets(open_checkpoint(folder))]
    plain = [name for name in reversed(weight_map) if name in sharded]
    assert [name for name in sharded if name in weight_map] == plain


def test_the_index_states_the_md5_of_every_shard(tmp_path: Path) -> None:
    artifact = export_tiny(make_checkpoint(tmp_path / "checkpoint"), "mlc", "q4f16_1", tmp_path)
    for shard in json.loads((artifact.path / "tensor-cache.json").read_text())["records"]:
        data = (artifact.path / shard["dataPath"]).read_bytes()
        assert hashlib.md5(data).hexdigest() == shard["md5sum"]
        assert len(data) == shard["nbytes"]


@pytest.mark.parametrize("variant", list(SCHEMES))
def test_two_exports_have_the_same_bytes(tmp_path: Path, variant: str) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    first = export_tiny(folder, "mlc", variant, tmp_path / "first")
    second = export_tiny(folder, "mlc", variant, tmp_path / "second")
    assert (first.path / MANIFEST).read_bytes() == (second.path / MANIFEST).read_bytes()
    second.check()
    names = {item.path for item in first.manifest.outputs}
    assert names >= {*CONFIGS, *TOKENIZER, "params_shard_0.bin"}


@pytest.mark.parametrize("variant", list(SCHEMES))
def test_the_bytes_of_small_checkpoints_are_the_recorded_ones(tmp_path: Path, variant: str) -> None:
    folders = (whole_group_checkpoint(tmp_path / "whole"), tail_checkpoint(tmp_path / "tails"))
    for folder, md5 in zip(folders, MD5[variant], strict=True):
        artifact = export_tiny(folder, "mlc", variant, tmp_path / f"{folder.name}-out")
        assert [shard["md5sum"] for shard in read_index(artifact)["records"]] == [md5], folder.name


def read_index(artifact: Artifact) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((artifact.path / "tensor-cache.json").read_text())
    return index


@pytest.mark.parametrize(("variant", "neighbour"), [("q4f16_0", "q4f16_1"), ("q3f16_0", "q3f16_1")])
def test_kn_schemes_hold_the_linears_of_nk_ones_transposed(
    tmp_path: Path, variant: str, neighbour: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", hidden_size=72, tie_word_embeddings=False)
    kn = loaded(export_tiny(folder, "mlc", variant, tmp_path / "kn"))
    nk = loaded(export_tiny(folder, "mlc", neighbour, tmp_path / "nk"))
    assert kn.keys() == nk.keys()
    for name, value in nk.items():
        linear = value.ndim == 2 and not name.startswith("model.embed_tokens.")
        np.testing.assert_array_equal(kn[name], value.T if linear else value, err_msg=name)
    assert "lm_head.q_weight" in kn


def test_q4f16_2_leaves_embedding_and_head_in_float16(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", tie_word_embeddings=False)
    tensors = loaded(export_tiny(folder, "mlc", "q4f16_2", tmp_path / "out"))
    reference = loaded(export_tiny(folder, "mlc", "q4f16_1", tmp_path / "all"))
    plain = {"model.embed_tokens.weight", "lm_head.weight"}
    for name in plain:
        expected = source_tensors(folder)[name].astype(np.float16)
        np.testing.assert_array_equal(tensors.pop(name), expected)
    assert tensors.keys() == {
        name for name in reference if name.rpartition(".")[0] + ".weight" not in plain
    }
    for name, value in tensors.items():
        np.testing.assert_array_equal(value, reference[name], err_msg=name)


def test_raw_f32_keeps_every_bit(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    artifact = export_tiny(folder, "mlc", "q0f32", tmp_path, raw_f32=True)
    tensors = loaded(artifact)
    for name, value in mlc_tensors(source_tensors(folder)).items():
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)
    assert artifact.manifest.variant.name == "q0f32-raw-f32"
    assert artifact.manifest.variant.precision is Precision.FP32
    assert artifact.manifest.effective_bpw == 32
    chat = json.loads((artifact.path / "mlc-chat-config.json").read_text())
    assert chat["quantization"] == "q0f32"
    assert not (artifact.path / "tensor-cache-b16.json").exists()


def test_raw_f32_keeps_scales_and_norms_of_q4f32_1(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    raw = loaded(export_tiny(folder, "mlc", "q4f32_1", tmp_path / "raw", raw_f32=True))
    rounded = loaded(export_tiny(folder, "mlc", "q4f32_1", tmp_path / "rounded"))
    assert raw.keys() == rounded.keys()
    for name, value in raw.items():
        expected = value.astype(BFLOAT16).astype(np.float32) if value.dtype != np.uint32 else value
        np.testing.assert_array_equal(rounded[name], expected, err_msg=name)
    source = source_tensors(folder)["model.norm.weight"]
    np.testing.assert_array_equal(raw["model.norm.weight"], source)


def test_raw_f32_is_refused_where_nothing_is_float32() -> None:
    with pytest.raises(InputError, match=r"--raw-f32: q4f16_1 has no float32.*q0f32, q4f32_1"):
        FORMAT.variant("q4f16_1", raw_f32=True)


@pytest.mark.parametrize("variant", ["q0f16", "q4f16_1"])
def test_a_weight_too_large_for_float16_is_refused_and_leaves_nothing(
    tmp_path: Path, variant: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = {name: value.copy() for name, value in source_tensors(folder).items()}
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = 70_000
    write_weights(folder, tensors)
    with pytest.raises(InputError, match=r"model\.layers\.2\.mlp\.up_proj\.weight.*70000"):
        export_tiny(folder, "mlc", variant, tmp_path / "out")
    assert not (tmp_path / "out" / "tiny").exists()


def test_a_weight_too_large_for_float16_fits_q0f32(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    tensors = {name: value.copy() for name, value in source_tensors(folder).items()}
    tensors["model.norm.weight"][0] = 1e9
    write_weights(folder, tensors)
    value = loaded(export_tiny(folder, "mlc", "q0f32", tmp_path))["model.norm.weight"][0]
    assert value == np.float32(ml_dtypes.bfloat16(1e9))


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        (FAMILIES["attention bias"], "biases of linear layers is not supported yet"),
        (FAMILIES["biases"], "biases of linear layers is not supported yet"),
        (FAMILIES["linear rope"], "rope scaling is not supported yet"),
        (FAMILIES["qwen2 linear rope"], "rope scaling is not supported yet"),
        ({**FAMILIES["qwen2"], "rope_scaling": LLAMA3_ROPE}, "rope scaling is not supported yet"),
        (
            {**FAMILIES["qwen2"], "head_dim": 32},
            "4 heads of 32 beside 64 channels",
        ),
        (
            {**FAMILIES["qwen3"], "hidden_act": "gelu_pytorch_tanh"},
            "hidden_act 'gelu_pytorch_tanh' is not supported by MLC's definition of this model",
        ),
    ],
)
def test_what_mlc_does_not_express_is_refused(
    tmp_path: Path, changes: dict[str, Any], feature: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **changes)
    with pytest.raises(InputError, match=feature) as caught:
        export_tiny(folder, "mlc", "q0f16", tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.bin"))


def test_dtype_names_of_other_tools_are_understood() -> None:
    assert FORMAT.variant("q016").name == "q0f16"
    assert FORMAT.variant("FP16").name == "q0f16"
    assert FORMAT.variant("fp32").name == "q0f32"
    with pytest.raises(InputError, match="q4f16_1"):
        FORMAT.variant("q5f16_1")
