"""A LoRA as llama.cpp's adapter: loaded beside a plain base, it gives PyTorch's logits."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
from click.testing import CliRunner

from edgeproof.cli import main
from runtimes.llamacpp import open_runtime
from tests import tiny
from tests.exported import export_tiny
from tests.lora import make_lora, unmerged_logits
from tests.tolerance import OTHER_RUNTIME, relative_error

pytestmark = pytest.mark.numbers

IDS = [1, 40, 7, 300, 12, 12, 99, 5]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TABLES = ("embed_tokens", "lm_head")
# Settings of the adapter, changes of the base.
ADAPTERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all linear layers": ({"modules": LINEAR}, {}),
    "patterns, rsLoRA, tables": (
        {
            "modules": (*LINEAR, *TABLES),
            "use_rslora": True,
            "rank_pattern": {"layers.1.self_attn.q_proj": 6},
            "alpha_pattern": {"up_proj": 3},
        },
        {"tie_word_embeddings": False, "num_key_value_heads": 4},
    ),
    "phi3, fused": (
        {"modules": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")},
        tiny.PHI3,
    ),
    "qwen2, halves rotated": ({"modules": LINEAR, "dtype": np.float16}, tiny.QWEN2),
}


def written(base: Path, lora: Path, file: Path) -> Any:
    command = ["gguf-adapter", "-m", str(base), "--adapter", str(lora), "-o", str(file)]
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("name", ADAPTERS)
def test_llama_cpp_with_the_adapter_is_pytorch_with_it(tmp_path: Path, name: str) -> None:
    settings, changes = ADAPTERS[name]
    base = tiny.make_checkpoint(tmp_path / "base", **changes)
    lora = make_lora(tmp_path / "lora", base, **settings)
    file = tmp_path / "lora.gguf"
    done = written(base, lora, file)
    assert done.exit_code == 0, done.output
    runtime = open_runtime(export_tiny(base, "gguf", "f32", tmp_path), 1)
    adapter = llama_cpp.llama_adapter_lora_init(runtime._model, str(file).encode())
    assert adapter
    plain = runtime.logits(IDS)
    handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(
        ctypes.cast(adapter, llama_cpp.llama_adapter_lora_p_ctypes)
    )
    llama_cpp.llama_set_adapters_lora(runtime._context, handles, 1, (ctypes.c_float * 1)(1.0))
    expected = unmerged_logits(base, [(lora, 1.0)], IDS)
    found = runtime.logits(IDS)
    runtime.close()
    assert relative_error(found, expected) < OTHER_RUNTIME
    assert relative_error(plain, expected) > 0.1


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = make_lora(tmp_path / "lora", base, base_model_name_or_path="some-org/Base-1M")
    (lora / "README.md").write_text("---\nlicense: mit\n---\n")
    assert written(base, lora, tmp_path / "lora.gguf").exit_code == 0
    reader = gguf.GGUFReader(tmp_path / "lora.gguf")
    facts = {key: field.contents() for key, field in reader.fields.items() if "." in key[4:]}
    assert {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 12.0,
        "general.license": "mit",
        "general.base_model.0.repo_url": "https://huggingface.co/some-org/Base-1M",
    }.items() <= facts.items()
    assert {item.name for item in reader.tensors} == {
        f"blk.{layer}.attn_{kind}.weight.lora_{half}"
        for layer in range(3)
        for kind in "qv"
        for half in "ab"
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "by more than low-rank matrices"),
        ({"modules": ("embed_tokens",)}, "a tied head and the embedding"),
        ({"modules": ("lm_head",)}, "a tied head and the embedding"),
    ],
)
def test_what_llama_cpp_cannot_add_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    done = written(base, make_lora(tmp_path / "lora", base, **settings), tmp_path / "out.gguf")
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert message in line
    assert not (tmp_path / "out.gguf").exists()


def test_what_is_read_is_never_written_over(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = make_lora(tmp_path / "lora", base)
    before = {path: path.read_bytes() for path in lora.iterdir()}
    for name in before:
        done = CliRunner().invoke(
            main, ["gguf-adapter", "-m", str(base), "--adapter", str(lora), "-o", str(name)]
        )
        assert done.exit_code == 2
        assert "NAME.gguf" in done.output
    assert {path: path.read_bytes() for path in lora.iterdir()} == before
