"""Gemma 3 in ONNX and llama.cpp: windows, two rotations, norms of 1 + weight on both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from safetensors.numpy import load_file

from edgeproof.errors import InputError
from edgeproof.families import read_config
from runtimes.formats import dequantise
from runtimes.gguf_file import read_metadata
from runtimes.parity.localise import Cause, Subject, weigh
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.peaks import Place
from runtimes.registry import open_reference, open_runtime
from tests.exported import export_tiny
from tests.family_checks import (
    check_logits,
    check_runtime,
    require_runtime,
    some_ids,
    transformers_model,
)
from tests.tiny import GEMMA3, OLMO2, QWEN3, change_json, config, make_checkpoint, write_weights
from tests.tolerance import OTHER_RUNTIME, REORDERED_FLOAT32, ROUNDED, relative_error

pytestmark = pytest.mark.numbers

WINDOW = GEMMA3["sliding_window"]
NEW_ROPES = {
    "rope_theta": None,
    "rope_local_base_freq": None,
    "rope_scaling": None,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("gemma3") / "m", **GEMMA3)


@pytest.mark.parametrize("graph", ["fused", "portable"])
def test_onnx_computes_it_past_the_window(folder: Path, tmp_path: Path, graph: str) -> None:
    """The text is more than three windows long, and goes on step by step."""
    assert len(some_ids()) > 3 * WINDOW
    artifact = export_tiny(folder, "onnx", "fp32", tmp_path, graph=graph)
    check_logits(artifact, folder, OTHER_RUNTIME)
    assert compare_metadata(artifact, folder) == ()
    assert open_reference(folder, 1).has_weights(dequantise(artifact))


@pytest.mark.parametrize(
    ("graph", "changes"),
    [
        ("fused", {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}),
        ("portable", {**QWEN3, "use_sliding_window": True, "max_window_layers": 1}),
    ],
)
def test_other_families_windows_in_onnx(
    tmp_path: Path, graph: str, changes: dict[str, Any]
) -> None:
    """Of all layers, and of those from the second on."""
    folder = make_checkpoint(tmp_path / "m", **changes, sliding_window=WINDOW)
    artifact = export_tiny(folder, "onnx", "fp32", tmp_path, graph=graph)
    check_logits(artifact, folder, OTHER_RUNTIME)
    assert compare_metadata(artifact, folder) == ()


class TableOfHalves(torch.nn.Module):
    """GELU as ggml computes it on a CPU: a table of float16, `ggml_vec_gelu_f32`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, y))


def test_llama_cpp_computes_it_past_the_window(folder: Path, tmp_path: Path) -> None:
    """All that is left, where PyTorch has llama.cpp's GELU, is what that rounds otherwise."""
    require_runtime("gguf")
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    check_logits(artifact, folder, ROUNDED["float16"])
    model = transformers_model(folder)
    for layer in model.get_submodule("model.layers").children():
        layer.get_submodule("mlp").register_module("act_fn", TableOfHalves())
    with torch.no_grad():
        expected = model(torch.tensor([some_ids()])).logits[0].numpy()
    check_runtime(artifact, some_ids(), expected, ROUNDED["float16"] / 10)
    assert compare_metadata(artifact, folder) == ()
    assert open_reference(folder, 1).has_weights(dequantise(artifact))
    said = read_metadata(artifact.file(".gguf"))
    expected_keys = {
        "gemma3.attention.sliding_window": 16,
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.freq_base_swa": 20000.0,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 4.0,
    }
    assert {key: said[key] for key in expected_keys} == expected_keys
    assert "gemma3.vocab_size" not in said


def test_norms_are_stored_as_what_is_multiplied_with(folder: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    path = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    stored = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}
    own = load_file(folder / "model.safetensors")
    norm = own["model.layers.0.pre_feedforward_layernorm.weight"]
    np.testing.assert_array_equal(stored["blk.0.ffn_norm.weight"], norm + np.float32(1))
    head = own["model.layers.0.self_attn.q_norm.weight"]
    np.testing.assert_array_equal(stored["blk.0.attn_q_norm.weight"], head + np.float32(1))


@pytest.mark.parametrize("graph", ["fused", "portable"])
def test_a_scaled_residual_stream_changes_nothing(folder: Path, tmp_path: Path, graph: str) -> None:
    found = []
    for options in ({}, {"residual_scale": 2.0**-5}):
        artifact = export_tiny(folder, "onnx", "fp16", tmp_path, graph=graph, **options)
        assert compare_metadata(artifact, folder) == ()
        subject = Subject(artifact, folder, open_reference(folder, 1), some_ids(), 1)
        assert weigh(subject, dequantise(artifact)).findings == ()
        runtime = open_runtime(artifact, 1)
        found.append(runtime.logits(some_ids()))
        runtime.close()
    assert relative_error(found[1], found[0]) < ROUNDED["float16"]


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_peaks_of_scores_are_of_heads(tmp_path: Path, kv_heads: int) -> None:
    """Gemma normalises queries and keys with the heads before the tokens: texts of any length."""
    made = make_checkpoint(tmp_path / "m", **GEMMA3, num_key_value_heads=kv_heads)
    reference = open_reference(made, 1)
    for length in (1, 4, 9, 30):
        reference.logits(some_ids()[:length])
    found = max(peak.value for peak in reference.peaks if peak.place is Place.SCORES)
    norms = load_file(made / "model.safetensors")
    # A normalised head is at most √32 long before its weights, and so is a key.
    own = [values for name, values in norms.items() if "q_norm" in name or "k_norm" in name]
    bounds = [np.abs(1 + values).max() for values in own]
    assert 0 < found <= 32 * max(bounds) ** 2 * 32**-0.5


@pytest.mark.parametrize("family", [GEMMA3, OLMO2])
def test_peaks_of_the_stream_are_apart_from_what_enters_norms_of_outputs(
    tmp_path: Path, family: dict[str, Any]
) -> None:
    """`--residual-scale` makes room in the stream only."""
    made = make_checkpoint(tmp_path / "m", **family)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = dict(load_file(made / "model.safetensors"))
    tensors[name] = tensors[name] * np.float32(1e4)
    write_weights(made, tensors)
    reference = open_reference(made, 1)
    reference.logits(some_ids())
    peaks = {peak.place: peak for peak in reference.peaks}
    assert peaks[Place.OUTPUTS].layer == 1
    assert peaks[Place.OUTPUTS].value > 1e4
    with torch.no_grad():
        ids = torch.tensor([some_ids()])
        found = transformers_model(made)(ids, output_hidden_states=True).hidden_states[:-1]
    entering = max(float(state.abs().max()) for state in found)
    assert peaks[Place.STREAM].value >= entering * (1 - REORDERED_FLOAT32)
    assert peaks[Place.STREAM].value < 1e3


def test_both_spellings_of_ropes_are_one_decoder() -> None:
    assert read_config(config(**GEMMA3)) == read_config(config(**{**GEMMA3, **NEW_ROPES}))


def test_what_config_json_does_not_say_is_transformers() -> None:
    from transformers import Gemma3TextConfig

    said = {"model_type": "gemma3_text", "vocab_size": 384}
    decoder, _ = read_config(said)
    assert decoder == read_config(json.loads(Gemma3TextConfig(vocab_size=384).to_json_string()))[0]


def test_a_window_that_is_missing_or_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    """Without its attribute a layer would see all, which short texts do not show."""
    artifact = export_tiny(folder, "onnx", "fp32", tmp_path)
    path = next(artifact.path.rglob("*.onnx"))
    model = onnx.load(path, load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    kept = [item for item in nodes[1].attribute if item.name != "local_window_size"]
    del nodes[1].attribute[:]
    nodes[1].attribute.extend(kept)
    nodes[5].attribute.append(helper.make_attribute("local_window_size", 16))
    path.write_bytes(model.SerializeToString())
    text = " ".join(item.text for item in compare_metadata(artifact, folder))
    assert "layers.1/self_attn/GroupQueryAttention local_window_size is -1" in text
    assert "layers.5/self_attn/GroupQueryAttention local_window_size is 16" in text


def test_a_wrong_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    other = make_checkpoint(tmp_path / "m", **GEMMA3)
    tensors = dict(load_file(other / "model.safetensors"))
    name = "model.layers.3.post_feedforward_layernorm.weight"
    tensors[name] = tensors[name] * np.float32(1.3)
    write_weights(other, tensors)
    subject = Subject(artifact, other, open_reference(other, 1), some_ids(), 1)
    (finding,) = weigh(subject, dequantise(artifact)).findings
    assert (finding.cause, finding.tensor) == (Cause.WEIGHTS, name)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "MLC": ("mlc", {}, "MLC: its gemma3 rotates every layer by the same base"),
    "a cap": ("onnx", {"final_logit_softcapping": 30.0}, "soft cap of 30.0 on logits"),
    "a cap in llama.cpp": ("gguf", {"final_logit_softcapping": 30.0}, "soft cap of 30.0"),
    "another scale": ("gguf", {"query_pre_attn_scalar": 64}, "attention multiplier 0.125"),
    "other layers": ("gguf", {"sliding_window_pattern": 3}, "sliding window of None|layer 2"),
    "both ways": ("onnx", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "no window": ("onnx", {"sliding_window": 0}, "sliding_window must be a positive integer"),
    "one rope": ("onnx", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters must have"),
    "no object": ("onnx", {"rope_parameters": {"full_attention": 3}}, "must be objects"),
}
VARIANTS = {"onnx": "fp32", "gguf": "f32", "mlc": "q0f32"}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_computed_is_refused_in_one_line(
    folder: Path, tmp_path: Path, case: str
) -> None:
    form, changes, message = REFUSED[case]
    other = tmp_path / "m"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    change_json(other / "config.json", **changes)
    with pytest.raises(InputError, match=message) as caught:
        export_tiny(other, form, VARIANTS[form], tmp_path)
    assert "\n" not in str(caught.value)
