"""A GGUF file holds the checkpoint's own values, in the types and order of llama.cpp's tools."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGUFReader, LlamaFileType, get_tensor_name_map, quants
from gguf.constants import MODEL_ARCH
from safetensors.numpy import load_file, save_file

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, qwen3
from edgeproof.families.registry import OURS
from edgeproof.families.structure import Norm
from export.checkpoint import open_checkpoint
from export.gguf import FORMAT
from export.gguf.tensors import bind
from tests.exported import export_tiny
from tests.tiny import QWEN3, make_checkpoint

LAYOUTS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "mha": {"num_key_value_heads": 4},
    "wide-heads": {"head_dim": 32},
    "bf16-sharded": {"dtype": "BF16", "shards": 3},
    "f16-untied": {"dtype": "F16", "tie_word_embeddings": False},
}
# Of any checkpoint; `recovered` is for those with recovery.json.
VARIANTS = [v.name for v in FORMAT.variants if v.recipe.direct and v.name != "recovered"]
LEGACY = ["q5_0", "q5_1", "q4_0", "q4_1"]


def read(artifact: Artifact) -> GGUFReader:
    return GGUFReader(artifact.file(".gguf"))


def stored(reader: GGUFReader) -> dict[str, np.ndarray]:
    """Every tensor as float32, by llama.cpp's name."""
    return {
        t.name: quants.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1].tolist())
        for t in reader.tensors
    }


def source_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The checkpoint's tensors under gguf-py's names, q and k rows not yet reordered."""
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, 3)
    parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {
        names.get_name(name, (".weight",)): values
        for part in parts
        for name, values in part.items()
    }


def un_permute(name: str, values: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Back from rotary pairs to rotary halves, row by row as the formats' documents say it."""
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    key = heads.get(name.split(".")[-2])
    if key is None:
        return values
    size = values.shape[0] // config[key]
    rows = [
        head * size + (2 * (i % (size // 2)) + i // (size // 2))
        for head in range(config[key])
        for i in range(size)
    ]
    return values[rows]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_f32_holds_exactly_the_checkpoint(tmp_path: Path, layout: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **LAYOUTS[layout])
    config = json.loads((folder / "config.json").read_text())
    expected = source_tensors(folder)
    found = stored(read(export_tiny(folder, "gguf", "f32", tmp_path)))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(un_permute(name, found[name], config), values.astype(np.float32))


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_tensor_has_llama_cpp_type_and_reference_bytes(tmp_path: Path, variant: str) -> None:
    folder = make_checkpoint(tmp_path / "m", tie_word_embeddings=False)
    exact = stored(read(export_tiny(folder, "gguf", "f32", tmp_path)))
    artifact = export_tiny(folder, "gguf", variant, tmp_path)
    reader = read(artifact)
    linear = variant.upper()
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            expected = "F32"
        elif tensor.name == "output.weight" and variant in LEGACY:
            expected = "Q8_0"
        else:
            expected = linear
        assert tensor.tensor_type.name == expected, tensor.name
        reference = quants.quantize(exact[tensor.name], tensor.tensor_type)
        assert tensor.data.tobytes() == reference.tobytes(), tensor.name
    kind = LlamaFileType(reader.get_field("general.file_type").contents())
    assert kind.name.partition("_")[2] == linear
    assert artifact.file(".gguf").name.endswith(f"-{linear}.gguf")


@pytest.mark.parametrize("variant", LEGACY)
def test_a_tied_embedding_is_stored_once_with_the_bits_of_a_head(
    tmp_path: Path, variant: str
) -> None:
    reader = read(export_tiny(make_checkpoint(tmp_path / "m"), "gguf", variant, tmp_path))
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["token_embd.weight"] == "Q8_0"
    assert "output.weight" not in types


def test_f16_of_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", dtype="BF16")
    reader = read(export_tiny(folder, "gguf", "f16", tmp_path))
    embedding = source_tensors(folder)["token_embd.weight"]
    tensor = next(t for t in reader.tensors if t.name == "token_embd.weight")
    assert np.array_equal(tensor.data, embedding.astype(np.float32).astype(np.float16))


def test_bf16_of_bfloat16_is_untouched(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", dtype="BF16")
    reader = read(export_tiny(folder, "gguf", "bf16", tmp_path))
    tensor = next(t for t in reader.tensors if t.name == "blk.1.ffn_down.weight")
    expected = source_tensors(folder)["blk.1.ffn_down.weight"]
    assert tensor.data.tobytes() == expected.astype(ml_dtypes.bfloat16).tobytes()


@pytest.mark.parametrize("variant", ["q8_0", *LEGACY])
def test_rows_that_do_not_fit_blocks_fall_back_to_f16_and_are_counted(
    tmp_path: Path, variant: str
) -> None:
    folder = make_checkpoint(tmp_path / "m", hidden_size=48)
    artifact = export_tiny(folder, "gguf", variant, tmp_path)
    types = {tensor.name: tensor.tensor_type.name for tensor in read(artifact).tensors}
    matrices = {name for name in types if not name.endswith("_norm.weight")}
    whole = {name for name in matrices if name.endswith("ffn_down.weight")}  # rows of 160
    assert {types[name] for name in whole} == {variant.upper()}
    assert {types[name] for name in matrices - whole} == {"F16"}
    weights = artifact.manifest.weights
    parameters = artifact.manifest.model.parameters
    fallback = weights["types"]["F16"]["elements"] / parameters
    assert weights["fallback_share"] == pytest.approx(fallback, abs=1e-6)
    assert {(f["stored"], f["row"], f["block"]) for f in weights["fallbacks"]} == {("F16", 48, 32)}
    assert sum(f["tensors"] for f in weights["fallbacks"]) == len(matrices - whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_statistics_are_the_bytes_of_the_file(tmp_path: Path, variant: str) -> None:
    artifact = export_tiny(make_checkpoint(tmp_path / "m"), "gguf", variant, tmp_path)
    tensors = read(artifact).tensors
    types = artifact.manifest.weights["types"]
    assert sum(item["tensors"] for item in types.values()) == len(tensors)
    assert artifact.manifest.weights["bytes"] == sum(int(t.n_bytes) for t in tensors)
    assert all(int(t.data_offset) % 32 == 0 for t in tensors)
    assert artifact.file(".gguf").stat().st_size % 32 == 0


def test_tensor_order_is_that_of_the_shards_by_file_name(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", shards=3)
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    backwards = dict(sorted(weight_map.items(), key=lambda item: item[1], reverse=True))
    index.write_text(json.dumps({"weight_map": backwards}))
    names = [target.sources[0].name for target in bind(open_checkpoint(folder))]
    files = sorted(folder.glob("*.safetensors"))
    assert names == [name for file in files for name in header_names(file)]


def header_names(path: Path) -> list[str]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [name for name in header if name != "__metadata__"]


@pytest.mark.parametrize("per_head", [True, False])
def test_a_norm_of_queries_weighs_the_rows_that_are_rotated_in_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_head: bool
) -> None:
    def config(raw: Mapping[str, Any]) -> DecoderConfig:
        found = qwen3.config(raw)
        norms = {**found.structure.norms, **dict.fromkeys(qwen3.HEAD_NORMS, Norm(1.0, per_head))}
        return replace(found, structure=replace(found.structure, norms=norms))

    known = qwen3.FAMILY.llama_cpp
    assert known is not None
    paired = replace(known, rotary_pairs=True, structure=lambda plain, keys: config(raw).structure)
    monkeypatch.setitem(OURS, "qwen3", replace(qwen3.FAMILY, config=config, llama_cpp=paired))
    folder = make_checkpoint(tmp_path / "m", **QWEN3)
    raw = json.loads((folder / "config.json").read_text())
    opened = open_checkpoint(folder)
    targets = {target.name: target for target in bind(opened)}
    weights, half = load_file(folder / "model.safetensors"), opened.config.head_dim // 2
    for short, heads in (("q", opened.config.heads), ("k", opened.config.kv_heads)):
        (rows,) = opened.blocks(targets[f"blk.1.attn_{short}_norm.weight"])
        weight = weights[f"model.layers.1.self_attn.{short}_norm.weight"].astype(np.float32) + 1
        halves = weight.reshape(-1, 2, half)
        assert len(halves) == (1 if per_head else heads)
        pairs = np.stack([halves[:, 0], halves[:, 1]], axis=-1)  # [heads, half, partner]
        np.testing.assert_array_equal(rows.reshape(-1, half, 2), pairs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_checkpoint_elsewhere_gives_the_same_bytes(tmp_path: Path, variant: str) -> None:
    first = make_checkpoint(tmp_path / "one")
    second = tmp_path / "another name"
    shutil.copytree(first, second)
    files = [
        export_tiny(folder, "gguf", variant, tmp_path / root).file(".gguf")
        for folder, root in ((first, "a"), (second, "b"))
    ]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("variant", ["f16", "q8_0", *LEGACY])
def test_overflow_is_refused_and_leaves_nothing(tmp_path: Path, variant: str) -> None:
    folder = make_checkpoint(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][3, 5] = -9e6
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        export_tiny(folder, "gguf", variant, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.gguf"))
    assert not (tmp_path / "out" / "tiny" / "gguf" / variant).exists()
