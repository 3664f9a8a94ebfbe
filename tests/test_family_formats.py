"""OLMo 2, SmolLM3 and Granite in every format whose runtime computes them, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeproof.errors import InputError
from export.sources.gguf_cache import converted
from runtimes.formats import dequantise
from runtimes.gguf_file import read_metadata
from runtimes.parity.localise import Cause, Subject, weigh
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.family_checks import (
    check_logits,
    check_stored,
    check_traced,
    require_runtime,
    some_ids,
)
from tests.tiny import (
    GRANITE,
    LLAMA3_ROPE,
    OLMO2,
    OTHERS,
    SMOLLM3,
    make_checkpoint,
    write_weights,
)
from tests.tolerance import OTHER_RUNTIME

pytestmark = pytest.mark.numbers

FLOATS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("fp32", {}),
    "gguf": ("f32", {}),
    "mlc": ("q0f32", {"raw_f32": True}),
}
IN_MLC = ("olmo2",)


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("name", OTHERS)
def test_a_family_is_exported_run_and_proved(tmp_path: Path, name: str, form: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **OTHERS[name])
    variant, options = FLOATS[form]
    if form == "mlc" and name not in IN_MLC:
        with pytest.raises(InputError, match=f"MLC: architecture '{name}' is not supported yet"):
            export_tiny(folder, form, variant, tmp_path, **options)
        return
    require_runtime(form)
    artifact = export_tiny(folder, form, variant, tmp_path, **options)
    check_logits(artifact, folder, OTHER_RUNTIME)
    check_stored(artifact, folder)
    if form != "mlc":  # where that compiles a second decoder: below
        check_traced(artifact, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_MLC)
def test_a_family_is_traced_in_tvm(tmp_path: Path, name: str) -> None:
    require_runtime("mlc")
    folder = make_checkpoint(tmp_path / "m", **OTHERS[name])
    variant, options = FLOATS["mlc"]
    check_traced(export_tiny(folder, "mlc", variant, tmp_path, **options), folder)


@pytest.mark.parametrize("name", OTHERS)
def test_a_gguf_file_of_it_is_a_source(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **OTHERS[name])
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    made = converted(artifact.file(".gguf"), "tiny").path
    found, expected = load_file(made / "model.safetensors"), load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_array_equal(found[tensor], values, err_msg=tensor)
    check_logits(artifact, made, OTHER_RUNTIME)


def test_granites_multipliers_are_metadata(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **GRANITE)
    found = read_metadata(export_tiny(folder, "gguf", "f16", tmp_path).file(".gguf"))
    expected = {
        "granite.attention.scale": 0.1,
        "granite.embedding_scale": 12.0,
        "granite.residual_scale": 0.22,
        "granite.logit_scale": 8.0,
        "granite.vocab_size": 384,
        "granite.rope.dimension_count": 16,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "tied OLMo 2": ("gguf", {**OLMO2, "tie_word_embeddings": True}, "olmo2 has no tied head"),
    "wide OLMo 2": ("gguf", {**OLMO2, "head_dim": 32}, "4 heads of 32 beside 64 channels"),
    "biased OLMo 2": ("gguf", {**OLMO2, "attention_bias": True}, "olmo2 has no such bias"),
    "biased OLMo 2 in MLC": ("mlc", {**OLMO2, "attention_bias": True}, "biases of linear layers"),
    "other layers": ("gguf", {**SMOLLM3, "no_rope_layers": [0, 1, 1, 1]}, "in layer 0"),
    "scaled SmolLM3": ("gguf", {**SMOLLM3, "rope_scaling": LLAMA3_ROPE}, "smollm3 has none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_runtime_does_not_compute_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    form, changes, message = REFUSED[case]
    folder = make_checkpoint(tmp_path / "m", **changes)
    with pytest.raises(InputError, match=message) as caught:
        export_tiny(folder, form, FLOATS[form][0], tmp_path)
    assert "\n" not in str(caught.value)


def test_a_window_that_llama_cpp_has_not_is_where_the_context_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    windowed = {**SMOLLM3, "use_sliding_window": True, "sliding_window": 8}
    folder = make_checkpoint(tmp_path / "m", **windowed)
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    assert read_metadata(artifact.file(".gguf"))["smollm3.context_length"] == 8
    assert "the context is stated as 8 positions instead of 256" in caplog.text


WRONG = {
    "olmo2": "model.layers.1.post_feedforward_layernorm.weight",
    "smollm3": "model.layers.3.self_attn.k_proj.weight",
    "granite": "model.layers.2.mlp.up_proj.weight",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_wrong_tensor_is_named(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **OTHERS[name])
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    tensors = dict(load_file(folder / "model.safetensors"))
    tensors[WRONG[name]] = tensors[WRONG[name]] * np.float32(1.3)
    write_weights(folder, tensors)
    subject = Subject(artifact, folder, open_reference(folder, 1), some_ids(), 1)
    (finding,) = weigh(subject, dequantise(artifact)).findings
    assert (finding.cause, finding.tensor) == (Cause.WEIGHTS, WRONG[name])
