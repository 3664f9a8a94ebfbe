"""A checkpoint opens only if it is whole; each kind of damage is one clear `InputError`."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from edgeproof.errors import InputError
from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint import checkpoint as checkpoint_module
from export.checkpoint.safetensors_file import SafetensorsFile
from export.targets import Target
from tests.tiny import LLAMA3_ROPE, make_checkpoint, write_weights

WEIGHTS = "model.safetensors"


def identity_targets(checkpoint: Checkpoint) -> list[Target]:
    return [Target(p.name, (p,), p.shape) for p in checkpoint.parameters]


def stream(folder: Path) -> dict[str, np.ndarray]:
    checkpoint = open_checkpoint(folder)
    return {
        t.name: np.concatenate(list(checkpoint.blocks(t))) for t in identity_targets(checkpoint)
    }


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_streamed_values_are_the_stored_ones(
    tmp_path: Path, dtype: str, shards: int, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "BLOCK_ELEMENTS", 1000)
    folder = make_checkpoint(
        tmp_path / "c", dtype=dtype, shards=shards, tie_word_embeddings=tied, num_key_value_heads=4
    )
    expected: dict[str, np.ndarray] = {}
    for file in folder.glob("*.safetensors"):
        expected |= load_file(file)
    streamed = stream(folder)
    assert streamed.keys() == expected.keys()
    for name, array in expected.items():
        assert streamed[name].dtype == array.dtype
        assert np.array_equal(streamed[name], array)


def test_blocks_bound_the_memory_of_an_embedding(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "BLOCK_ELEMENTS", 640)
    checkpoint = open_checkpoint(checkpoint_folder)
    blocks = list(checkpoint.blocks(identity_targets(checkpoint)[0]))
    assert max(block.size for block in blocks) <= 640
    assert sum(len(block) for block in blocks) == checkpoint.config.vocab


def test_a_head_that_repeats_the_tied_embedding_is_accepted(checkpoint_folder: Path) -> None:
    tensors = load_file(checkpoint_folder / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_weights(checkpoint_folder, tensors)
    assert open_checkpoint(checkpoint_folder).config.tied


def edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def edit_tensors(edit: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = {name: array.copy() for name, array in load_file(folder / WEIGHTS).items()}
        edit(tensors)
        write_weights(folder, tensors)

    return apply


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


Q = "model.layers.1.self_attn.q_proj.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (remove("config.json"), "config.json: missing"),
    "broken config": (write("config.json", b"{"), "config.json: not valid JSON"),
    "config is a list": (write("config.json", b"[]"), "expected a JSON object"),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer.json: missing"),
    "unknown architecture": (edit_config(model_type="mamba"), "unknown architecture 'mamba'"),
    "attention bias": (edit_config(attention_bias=True), "self_attn.q_proj.bias is missing"),
    "yarn": (
        edit_config(rope_scaling={"rope_type": "yarn", "factor": 8.0}),
        "rope scaling of type 'yarn'",
    ),
    "dynamic rope": (
        edit_config(rope_parameters={"rope_type": "dynamic", "factor": 8.0}),
        "rope scaling of type 'dynamic'",
    ),
    "longrope": (edit_config(rope_scaling={"type": "longrope"}), "rope scaling of type 'longrope'"),
    "rope scaling without numbers": (
        edit_config(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        "low_freq_factor must be a positive number",
    ),
    "rope scaling without its context": (
        edit_config(rope_scaling={**LLAMA3_ROPE, "original_max_position_embeddings": None}),
        "original_max_position_embeddings None",
    ),
    "rope by layer": (
        edit_config(rope_parameters={"full_attention": {"rope_type": "default"}}),
        "differ between layers",
    ),
    "partial rope": (edit_config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    "rope type": (edit_config(rope_scaling={"rope_type": ["llama3"]}), "type ['llama3'] is not"),
    "rope base": (edit_config(rope_theta="1e4"), "rope_theta must be a positive number"),
    "layer types": (
        edit_config(layer_types=["full_attention", "sliding_attention"]),
        "layer_types other than 'full_attention'",
    ),
    "mistral window": (
        edit_config(model_type="mistral", sliding_window=-1),
        "sliding_window must be a positive integer or null, not -1",
    ),
    "qwen window": (
        edit_config(model_type="qwen2", use_sliding_window=True, max_window_layers="2"),
        "max_window_layers must be an integer, not '2'",
    ),
    "too few layer types": (
        edit_config(layer_types=["full_attention"]),
        "1 layer_types for 3 layers",
    ),
    "qwen3 without head size": (edit_config(model_type="qwen3"), "head_dim must be a positive"),
    "other activation": (edit_config(hidden_act="gelu"), "hidden_act"),
    "heads do not fit": (edit_config(num_key_value_heads=3), "do not fit"),
    "negative size": (edit_config(hidden_size=-1), "hidden_size must be a positive integer"),
    "no weights": (remove(WEIGHTS), "no model.safetensors"),
    "truncated": (truncate, "truncated"),
    "empty file": (write(WEIGHTS, b""), "truncated"),
    "garbage": (write(WEIGHTS, b"GGUF" * 100), "truncated or no safetensors"),
    "pickle only": (pickle_only, "pytorch_model.bin: pickled weights are never loaded"),
    "missing tensor": (edit_tensors(lambda t: t.pop(Q)), f"tensor {Q} is missing"),
    "unexpected tensor": (
        edit_tensors(lambda t: t.update({"model.extra": np.zeros(3, np.float32)})),
        "unexpected tensor model.extra",
    ),
    "wrong shape": (
        edit_tensors(lambda t: t.update({Q: np.zeros((64, 63), np.float32)})),
        f"tensor {Q} has shape [64, 63]",
    ),
    "unsupported dtype": (
        edit_tensors(lambda t: t.update({Q: np.zeros((64, 64), np.int8)})),
        "has dtype I8",
    ),
    "another tied head": (
        edit_tensors(lambda t: t.update({"lm_head.weight": np.zeros((384, 64), np.float32)})),
        "lm_head.weight differs",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_in_one_line(checkpoint_folder: Path, damage: str) -> None:
    apply, message = DAMAGE[damage]
    apply(checkpoint_folder)
    with pytest.raises(InputError) as caught:
        open_checkpoint(checkpoint_folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(checkpoint_folder) in str(caught.value)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(
    tmp_path: Path, dtype: str, bad: float
) -> None:
    folder = make_checkpoint(tmp_path / "c", dtype=dtype)
    edit_tensors(lambda tensors: tensors[Q].__setitem__((5, 7), bad))(folder)
    with pytest.raises(InputError, match=rf"tensor {Q} has a NaN or infinite value at \[5, 7\]"):
        stream(folder)


def sharded(folder: Path) -> Path:
    return make_checkpoint(folder, shards=2)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "c")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00002-of-00002.safetensors: this shard"):
        open_checkpoint(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "", ".."])
def test_an_index_cannot_point_outside_its_folder(tmp_path: Path, shard: str) -> None:
    folder = sharded(tmp_path / "c")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    with pytest.raises(InputError, match="outside the checkpoint's folder"):
        open_checkpoint(folder)


def test_an_index_that_lies_about_a_tensor_is_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "c")
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["model.norm.weight"] = next(
        shard
        for shard in raw["weight_map"].values()
        if shard != raw["weight_map"]["model.norm.weight"]
    )
    index.write_text(json.dumps(raw))
    with pytest.raises(InputError, match=r"tensor model\.norm\.weight is missing"):
        open_checkpoint(folder)


@given(
    header=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.text(max_size=5),
            st.one_of(
                st.none(),
                st.fixed_dictionaries(
                    {
                        "dtype": st.sampled_from(["F32", "BF16", "X", 3]),
                        "shape": st.lists(st.integers(-2, 2**40), max_size=3),
                        "data_offsets": st.lists(st.integers(-5, 2**62), min_size=1, max_size=3),
                    }
                ),
            ),
            max_size=3,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
@settings(max_examples=200, deadline=None)
def test_no_header_can_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, header: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / WEIGHTS
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    try:
        file = SafetensorsFile(path)
    except InputError:
        return
    for name, entry in file.entries.items():
        assert file.tensor(name).shape == entry.shape
