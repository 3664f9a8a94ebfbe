"""Families beyond Llama in MLC: our decoder computes PyTorch's logits from the artifact alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtimes.formats import dequantise
from runtimes.parity.localise import Cause
from runtimes.parity.localise.metadata import compare_metadata
from tests.exported import export_tiny
from tests.family_checks import check_logits, check_stored
from tests.tiny import QWEN2, QWEN3, change_json, make_checkpoint
from tests.tolerance import OTHER_RUNTIME

pytestmark = pytest.mark.numbers

pytest.importorskip("tvm")

MODELS: dict[str, dict[str, Any]] = {
    "qwen2": QWEN2,
    "qwen3": {**QWEN3, "attention_bias": True, "tie_word_embeddings": False},
}
# The fields of the config classes, less what mlc_llm sets when it compiles (`dtype`, fp8 blocks).
QWEN = {
    "hidden_act", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "rms_norm_eps", "rope_theta", "vocab_size", "tie_word_embeddings",
    "context_window_size", "prefill_chunk_size", "tensor_parallel_shards", "head_dim",
    "max_batch_size",
}  # fmt: skip
FIELDS = {"qwen2": QWEN, "qwen3": QWEN | {"attention_bias"}}


@pytest.mark.parametrize("name", MODELS)
def test_a_family_is_exported_run_and_proved(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **MODELS[name])
    artifact = export_tiny(folder, "mlc", "q0f32", tmp_path, raw_f32=True)
    chat = json.loads((artifact.path / "mlc-chat-config.json").read_text())
    assert chat["model_type"] == name
    assert chat["model_config"].keys() == FIELDS[name]
    check_logits(artifact, folder, OTHER_RUNTIME)
    check_stored(artifact, folder)


@pytest.mark.parametrize("name", MODELS)
def test_fused_weights_and_biases_are_what_their_parts_are(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **MODELS[name])
    artifact = export_tiny(folder, "mlc", "q4f16_1", tmp_path)
    assert compare_metadata(artifact, folder) == ()
    weights = dequantise(artifact)
    bias = "model.layers.1.self_attn.k_proj.bias"
    assert weights[bias].shape == (weights[bias.replace("bias", "weight")].shape[0],)
    index = json.loads((artifact.path / "tensor-cache.json").read_text())["records"]
    names = {record["name"] for shard in index for record in shard["records"]}
    layer = "model.layers.1.self_attn"
    assert {f"{layer}.c_attn.q_weight", f"{layer}.c_attn.q_scale", f"{layer}.c_attn.bias"} <= names


def test_a_wrong_rotary_base_is_found(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **QWEN2)
    artifact = export_tiny(folder, "mlc", "q0f16", tmp_path)
    change_json(folder / "config.json", rope_theta=5e4)
    (finding,) = compare_metadata(artifact, folder)
    assert (finding.cause, finding.key) == (Cause.METADATA, "model_config.rope_theta")
