"""A .gguf of any family that we export becomes the checkpoint that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from edgeproof.errors import InputError
from export.sources.gguf_cache import converted
from tests.exported import export_tiny
from tests.tiny import (
    FAMILIES,
    GEMMA3,
    LLAMA3_ROPE,
    OTHERS,
    PHI3,
    QWEN2,
    VOCAB,
    make_checkpoint,
)
from tests.tolerance import REORDERED_FLOAT32, relative_error

pytestmark = pytest.mark.numbers

PUBLISHED = {**LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 8192}
READABLE: dict[str, dict[str, Any]] = {
    **{name: changes for name, changes in FAMILIES.items() if "llama3" not in name},
    "published llama3 rope": {"rope_scaling": PUBLISHED, "rope_theta": 5e5, "head_dim": 128},
    "both biases, permuted heads": {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
    **OTHERS,
    "gemma3": GEMMA3,
    "gemma3 of one window": {**GEMMA3, "sliding_window": 256, "rope_scaling": None},
    "gemma3 without windows": {**GEMMA3, "sliding_window_pattern": 1},
    "phi3": PHI3,
    "phi3, tied, another factor": {
        **PHI3,
        "tie_word_embeddings": True,
        "rope_scaling": {**PHI3["rope_scaling"], "attention_factor": 1.25},
    },
    "phi3, unscaled": {**PHI3, "rope_scaling": None, "partial_rotary_factor": 30 / 32},
}
ADDED = 1.0  # to the weight of a Gemma's norm, before x is multiplied with it


def tensors(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


def stored(gguf: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every tensor."""
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(gguf).tensors}


def said(gguf: Path) -> dict[str, Any]:
    """What the metadata says of the function and the tokenizer."""
    fields = GGUFReader(gguf).fields.items()
    return {key: f.contents() for key, f in fields if not key.startswith(("general.", "GGUF."))}


def logits(folder: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([np.random.default_rng(0).integers(0, VOCAB, 100).tolist()])
    with torch.no_grad():
        return np.asarray(model(ids).logits[0].numpy())


@pytest.mark.parametrize("family", READABLE)
def test_values_and_function_come_back(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **READABLE[family])
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    made = converted(gguf, "tiny").path
    found, expected = tensors(made), tensors(folder)
    assert found.keys() == expected.keys()
    offset = np.float32(ADDED if family.startswith("gemma3") else 0)
    for name, value in expected.items():
        own = offset if value.ndim == 1 else np.float32(0)
        np.testing.assert_array_equal(
            found[name] + own, value.astype(np.float32) + own, err_msg=name
        )
    np.testing.assert_array_equal(logits(made), logits(folder))
    again = export_tiny(made, "gguf", "f32", tmp_path / "again").file(".gguf")
    assert stored(again) == stored(gguf)
    assert said(again) == said(gguf)


@pytest.mark.parametrize("family", ["both biases, permuted heads", "qwen2", "qwen3"])
def test_permuting_channels_leaves_the_function(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / "m", **READABLE[family])
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    permuted = converted(gguf, "tiny", "seed").path
    moved, before = tensors(permuted), tensors(folder)
    for linear in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        name = f"model.layers.1.{linear}.weight"
        assert not np.array_equal(moved[name], before[name])
    expected = logits(folder)
    assert relative_error(logits(permuted), expected) < REORDERED_FLOAT32


@pytest.mark.parametrize("rope", [LLAMA3_ROPE, {**PUBLISHED, "high_freq_factor": 5.0}])
def test_rope_divisors_of_no_published_llama_are_refused(
    tmp_path: Path, rope: dict[str, Any]
) -> None:
    folder = make_checkpoint(tmp_path / "m", rope_scaling=rope, head_dim=128)
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    with pytest.raises(InputError, match=r"rope_freqs\.weight is not the rope scaling") as caught:
        converted(gguf, "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -8.0])
def test_damaged_rope_divisors_are_refused(tmp_path: Path, value: float) -> None:
    folder = make_checkpoint(tmp_path / "m", rope_scaling=PUBLISHED, head_dim=128)
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    (tensor,) = (t for t in GGUFReader(gguf).tensors if t.name == "rope_freqs.weight")
    data = bytearray(gguf.read_bytes())
    data[tensor.data_offset : tensor.data_offset + 4] = np.float32(value).tobytes()
    gguf.write_bytes(data)
    with pytest.raises(InputError, match=r"rope_freqs\.weight"):
        converted(gguf, "tiny")


def test_a_family_without_its_biases_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", **QWEN2)
    gguf = export_tiny(folder, "gguf", "f32", tmp_path).file(".gguf")
    data = gguf.read_bytes()
    gguf.write_bytes(data.replace(b"blk.0.attn_k.bias", b"blk.0.attn_k.baas"))
    with pytest.raises(InputError, match=r"tensor blk\.0\.attn_k\.bias is missing"):
        converted(gguf, "tiny")
