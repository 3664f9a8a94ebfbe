"""Phi-3 and Phi-4-mini: fused projections, long rope and windows, in every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.families import read_config
from edgeproof.families.context import bounded, in_llama_cpp
from edgeproof.families.rope import scaled_frequencies
from export.checkpoint import open_checkpoint
from export.gguf.model_names import check_name
from runtimes.config_facts import facts_of
from runtimes.formats import dequantise
from runtimes.gguf_file import read_file, read_metadata
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.registry import open_reference, open_runtime
from runtimes.weights.fused import Heads, split
from tests.exported import export_tiny
from tests.family_checks import check_logits, check_traced, require_runtime, transformers_model
from tests.tiny import PHI3, config, make_checkpoint
from tests.tolerance import OTHER_RUNTIME

pytestmark = pytest.mark.numbers

FLOATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "onnx": ("onnx", "fp32", {}),
    "portable onnx": ("onnx", "fp32", {"graph": "portable"}),
    "gguf": ("gguf", "f32", {}),
    "mlc": ("mlc", "q0f32", {"raw_f32": True}),
}
UNSCALED = {**PHI3, "rope_scaling": None, "partial_rotary_factor": 1.0}
WINDOW = {**UNSCALED, "sliding_window": 100, "max_position_embeddings": 256}
LAYER = "model.layers.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("phi3") / "m", **PHI3, tie_word_embeddings=True)


def check_weights(artifact: Artifact, folder: Path) -> None:
    """The file's weights are the checkpoint's, each linear layer by itself."""
    assert compare_metadata(artifact, folder) == ()
    found, heads = dequantise(artifact), Heads(4, 2, 32)
    expected = {
        part: rows
        for name, value in transformers_model(folder).named_parameters()
        for part, rows in split(name, value.detach().numpy(), heads)
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", FLOATS)
def test_it_is_exported_run_and_proved(folder: Path, tmp_path: Path, name: str) -> None:
    form, variant, options = FLOATS[name]
    require_runtime(form)
    artifact = export_tiny(folder, form, variant, tmp_path, **options)
    check_logits(artifact, folder, OTHER_RUNTIME)
    check_weights(artifact, folder)
    if form != "mlc":  # where that compiles a second decoder
        check_traced(artifact, folder)


ROPES: dict[str, dict[str, Any]] = {
    "none": {"rope_scaling": None},
    "whole heads": {"rope_scaling": None, "partial_rotary_factor": 1.0},
    "longrope": {},
    "attention": {"rope_scaling": {**PHI3["rope_scaling"], "attention_factor": 1.25}},
    "factor": {"rope_scaling": {**PHI3["rope_scaling"], "factor": 32.0}},
    "transformers 5": {
        "rope_scaling": None,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 2e4,
            "partial_rotary_factor": 0.5,
            **{key: PHI3["rope_scaling"][key] for key in ("short_factor", "long_factor")},
        },
    },
    "not longer": {"max_position_embeddings": 256},
}


@pytest.mark.parametrize("name", ROPES)
def test_angles_are_transformers_within_the_first_context(name: str) -> None:
    raw = config(**{**PHI3, **ROPES[name]})
    rope = read_config(raw)[0].rope
    rest = {key: value for key, value in raw.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi3", **rest))
    rotary = type(model.model.rotary_emb)(model.config)
    cosine, _ = rotary(torch.zeros(1), torch.arange(256)[None])
    half = cosine.shape[-1] // 2
    assert rope.rotated(32) == 2 * half
    np.testing.assert_allclose(scaled_frequencies(32, rope), rotary.inv_freq.numpy(), rtol=2e-7)
    assert rope.amplitude == pytest.approx(rotary.attention_scaling, rel=1e-12)
    known = facts_of(raw)["rotary_cosine"]
    table = cosine[0, :, :half].numpy()
    assert known.wrong_row(np.resize(table, (known.positions, half))[:256]) in (None, 256)


@pytest.mark.parametrize(
    ("changes", "without", "with_switch"),
    [
        ({}, 256, 1024),
        (UNSCALED, 1024, 1024),
        (WINDOW, 100, 100),
        ({"sliding_window": 2047}, 256, 1024),
        ({"sliding_window": 300}, 256, 300),
    ],
)
def test_a_format_reaches_as_far_as_it_computes_the_same(
    changes: dict[str, Any], without: int, with_switch: int
) -> None:
    c = read_config(config(**{**PHI3, **changes}))[0]
    assert bounded(c).max_positions == without
    assert in_llama_cpp(c).max_positions == with_switch
    assert all(layer.window is None for layer in bounded(c).structure.layers)


def test_a_window_is_stated_as_context_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(tmp_path / "m", **WINDOW)
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    assert "the context is stated as 100 positions instead of 256" in caplog.text
    stated = read_metadata(artifact.file(".gguf"))
    assert (stated["phi3.context_length"], stated["phi3.attention.sliding_window"]) == (100, 0)
    assert compare_metadata(artifact, folder) == ()
    reference = open_reference(folder, 1)
    assert (reference.context, reference.windowless) == (256, 100)
    check_logits(artifact, folder, OTHER_RUNTIME)


def test_mlc_gets_both_tables_and_the_first_context(folder: Path, tmp_path: Path) -> None:
    artifact = export_tiny(folder, "mlc", "q4f16_1", tmp_path)
    stated = json.loads((artifact.path / "mlc-chat-config.json").read_text())["model_config"]
    # The fields of mlc_llm's Phi3Config.
    assert stated.keys() == {
        "model_type", "hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "rms_norm_eps", "num_key_value_heads", "max_position_embeddings",
        "position_embedding_base", "rope_scaling", "original_max_position_embeddings",
        "context_window_size", "prefill_chunk_size", "head_dim", "tensor_parallel_shards",
        "max_batch_size", "tie_word_embeddings", "partial_rotary_factor",
    }  # fmt: skip
    assert (stated["context_window_size"], stated["max_position_embeddings"]) == (256, 1024)
    assert stated["rope_scaling"]["long_factor"] == PHI3["rope_scaling"]["long_factor"]
    assert compare_metadata(artifact, folder) == ()
    index = json.loads((artifact.path / "tensor-cache.json").read_text())["records"]
    names = {record["name"] for shard in index for record in shard["records"]}
    layer = "transformer.h.2"
    assert {f"{layer}.mixer.qkv_proj.q_weight", f"{layer}.mlp.gate_up_proj.q_scale"} <= names


def test_gguf_keeps_what_is_fused_and_both_tables(folder: Path, tmp_path: Path) -> None:
    _, tensors = read_file(export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf"))
    stored, weights = {item.name: item for item in tensors}, load_file(folder / "model.safetensors")
    for name, ours in (("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")):
        expected = weights[f"{LAYER}.{ours}.weight"]
        np.testing.assert_array_equal(stored[f"blk.1.{name}.weight"].data.view("<f4"), expected)
    for table in ("long", "short"):
        values = stored[f"rope_factors_{table}.weight"].data.view("<f4")
        np.testing.assert_allclose(values, PHI3["rope_scaling"][f"{table}_factor"], rtol=1e-7)


def test_the_runtimes_end_where_long_rope_begins_anew(folder: Path, tmp_path: Path) -> None:
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    runtime = open_runtime(artifact, 1)
    assert runtime.context == open_reference(folder, 1).context == 256
    runtime.close()


def test_parts_of_a_tensor_are_its_rows(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **PHI3, dtype="BF16", shards=2)
    checkpoint = open_checkpoint(folder)
    names = {parameter.name for parameter in checkpoint.parameters}
    assert checkpoint.weight_map.keys() == names == set(checkpoint.stored_order)
    shard = load_file(checkpoint.file_of(f"{LAYER}.self_attn.k_proj.weight"))
    keys = checkpoint.first_rows(f"{LAYER}.self_attn.k_proj.weight", 1000)
    np.testing.assert_array_equal(keys, shard[f"{LAYER}.self_attn.qkv_proj.weight"][128:192])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "type 'linear' is not supported"),
        ({"rope_scaling": {**PHI3["rope_scaling"], "type": "su"}}, "write 'longrope'"),
        ({"rope_scaling": {**PHI3["rope_scaling"], "short_factor": [1.0]}}, "a list of 8 numbers"),
        ({"rope_scaling": {**PHI3["rope_scaling"], "long_factor": [0] * 8}}, "long_factor must be"),
        ({"rope_scaling": {**PHI3["rope_scaling"], "factor": 1e300}}, "beyond any format"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"original_max_position_embeddings": 1}, "must be an integer above 1"),
        ({"partial_rotary_factor": 1.5}, "leaves no whole pairs"),
        ({"partial_rotary_factor": 0.04}, "leaves no whole pairs"),
        ({"head_dim": "32"}, "head_dim must be a positive integer"),
    ],
)
def test_a_config_that_transformers_would_not_load_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_config(config(**{**PHI3, **changes}))


def test_a_name_that_llama_cpp_takes_for_phi_3_needs_its_tokens() -> None:
    tokens = ("<s>", "</s>", "<unk>", "<|endoftext|>")
    check_name("Phi 3 Mini", ())
    check_name("My phi3", tokens)
    with pytest.raises(InputError, match="without its token '</s>'; export with another --name"):
        check_name("Phi-3-mini", ("<s>",))
