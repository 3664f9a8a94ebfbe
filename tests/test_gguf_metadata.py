"""GGUF metadata says what the checkpoint says, and what llama.cpp cannot do is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, SpecialVocab, naming_convention, size_label
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from edgeproof.errors import InputError
from export.gguf import naming
from export.gguf.pretokenizer import pretokenizer_name
from tests.exported import export_tiny
from tests.tiny import (
    CHAT_TEMPLATE,
    FAMILIES,
    GRANITE,
    LLAMA3_ROPE,
    OLMO2,
    PHI3,
    QWEN2,
    QWEN3,
    SMOLLM3,
    VOCAB,
    make_checkpoint,
)

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
Change = Callable[[dict[str, Any]], None]


def metadata(folder: Path, out: Path) -> dict[str, Any]:
    reader = GGUFReader(export_tiny(folder, "gguf", "f32", out).file(".gguf"))
    return {key: field.contents() for key, field in reader.fields.items()}


HEAD_SIZE = {"attention.key_length", "attention.value_length"}


def edit(path: Path, change: Change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_dimensions_are_those_of_the_config(tmp_path: Path) -> None:
    found = metadata(make_checkpoint(tmp_path / "m", head_dim=32), tmp_path)
    expected = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "llama.block_count": 3,
        "llama.context_length": 256,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 160,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 100000.0,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "llama.vocab_size": VOCAB,
    }
    assert {key: found[key] for key in expected} == expected


def test_rope_base_of_a_transformers_5_config_is_kept(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", rope_parameters={"rope_theta": 130000.0})
    edit(folder / "config.json", lambda raw: raw.pop("rope_theta"))
    assert metadata(folder, tmp_path)["llama.rope.freq_base"] == 130000.0


def test_keys_have_the_prefix_of_the_architecture(tmp_path: Path) -> None:
    found = metadata(make_checkpoint(tmp_path / "m", **FAMILIES["qwen3"]), tmp_path)
    assert found["general.architecture"] == "qwen3"
    assert found["qwen3.attention.key_length"] == found["qwen3.attention.value_length"] == 32
    assert not [key for key in found if key.startswith("llama.")]
    # As llama.cpp's converter: these belong to its Llama alone.
    assert not {"qwen3.vocab_size", "qwen3.rope.dimension_count"} & found.keys()


# What llama.cpp's own converter (of llama-cpp-python 0.3.36) wrote for these checkpoints beside the
# keys of names and vocabulary, `rope.freq_base`, ε, and the sizes that all architectures state.
CONVERTED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "llama": ({}, {"vocab_size", "rope.dimension_count", *HEAD_SIZE}),
    "qwen2": (QWEN2, set()),
    "qwen3": (QWEN3, HEAD_SIZE),
    "olmo2": (OLMO2, set()),
    "smollm3": (SMOLLM3, {"vocab_size", "rope.dimension_count"}),
    "granite": (
        GRANITE,
        {
            "vocab_size", "rope.dimension_count", "attention.scale", "embedding_scale",
            "residual_scale", "logit_scale",
        },
    ),
    "phi3": (
        PHI3,
        {
            "rope.dimension_count", "rope.scaling.original_context_length",
            "rope.scaling.attn_factor", "attention.sliding_window",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERTED)
def test_keys_are_those_of_llama_cpps_converter(tmp_path: Path, name: str) -> None:
    changes, own = CONVERTED[name]
    found = metadata(make_checkpoint(tmp_path / "m", **changes), tmp_path)
    keys = {key.removeprefix(f"{name}.") for key in found if key.startswith(f"{name}.")}
    assert keys == own | {
        "block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
    }  # fmt: skip


def test_phi3s_values_are_those_of_llama_cpps_converter(tmp_path: Path) -> None:
    found = metadata(make_checkpoint(tmp_path / "m", **PHI3), tmp_path)
    expected = {
        "phi3.context_length": 1024,
        "phi3.rope.scaling.original_context_length": 256,
        "phi3.rope.dimension_count": 16,
        "phi3.attention.sliding_window": 0,
    }
    assert {key: found[key] for key in expected} == expected
    factor = found["phi3.rope.scaling.attn_factor"]
    assert factor == pytest.approx((1 + np.log(4) / np.log(256)) ** 0.5)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("linear rope", {"type": "linear", "factor": 2.5}),
        ("qwen2 linear rope", {"type": "linear", "factor": 4.0}),
        ("llama3 rope", {}),  # a tensor, rope_freqs.weight
    ],
)
def test_rope_scaling_is_stated_where_it_is_metadata(
    tmp_path: Path, family: str, expected: dict[str, Any]
) -> None:
    found = metadata(make_checkpoint(tmp_path / "m", **FAMILIES[family]), tmp_path)
    prefix = f"{found['general.architecture']}.rope.scaling."
    scaling = {key.removeprefix(prefix): found[key] for key in found if key.startswith(prefix)}
    assert scaling == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**QWEN3, "attention_bias": True}, r"o_proj\.bias: llama\.cpp's qwen3 has no such bias"),
        ({**QWEN2, "rope_scaling": LLAMA3_ROPE}, "'llama3': llama.cpp's qwen2 has none"),
    ],
)
def test_what_llama_cpps_graph_does_not_compute_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        metadata(make_checkpoint(tmp_path / "m", **changes), tmp_path)
    assert "\n" not in str(caught.value)


def test_vocabulary_is_the_tokenizers(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    found = metadata(folder, tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    special = set(tokenizer.get_added_tokens_decoder())
    assert found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "smollm"
    assert found["tokenizer.ggml.tokens"][:size] == [tokenizer.id_to_token(i) for i in range(size)]
    types = found["tokenizer.ggml.token_type"]
    assert types[:size] == [3 if i in special else 1 for i in range(size)]
    reference = SpecialVocab(folder, load_merges=True)
    assert found["tokenizer.ggml.merges"] == reference.merges
    ids = reference.special_token_ids
    assert found["tokenizer.ggml.bos_token_id"] == ids["bos"] == 1
    assert found["tokenizer.ggml.eos_token_id"] == ids["eos"] == 2
    assert found["tokenizer.ggml.unknown_token_id"] == ids["unk"] == 0
    assert found["tokenizer.ggml.padding_token_id"] == ids["pad"] == 2
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == CHAT_TEMPLATE == reference.chat_template


def test_rows_beyond_the_tokenizer_are_unused_pad_tokens(tmp_path: Path) -> None:
    found = metadata(make_checkpoint(tmp_path / "m", vocab_size=VOCAB + 64), tmp_path)
    assert len(found["tokenizer.ggml.tokens"]) == VOCAB + 64
    assert found["tokenizer.ggml.tokens"][-1] == f"[PAD{VOCAB + 63}]"
    assert found["tokenizer.ggml.token_type"][-1] == 5


def test_more_tokens_than_the_model_has_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="and the embedding rows for 64 tokens"):
        metadata(make_checkpoint(tmp_path / "m", vocab_size=64), tmp_path)


def test_a_placeholder_of_images_without_a_row_is_left_out(tmp_path: Path) -> None:
    """Gemma 3's text models have one."""
    raw = json.loads((make_checkpoint(tmp_path / "any") / "tokenizer.json").read_text("utf-8"))
    added = [token["id"] for token in raw["added_tokens"]]
    rows = 1 + max(*raw["model"]["vocab"].values(), *added)
    folder = make_checkpoint(tmp_path / "m", vocab_size=rows)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    token = {"id": rows, "content": "<image_soft_token>", "special": True, **flags}
    edit(folder / "tokenizer.json", lambda raw: raw["added_tokens"].append(token))
    assert len(metadata(folder, tmp_path)["tokenizer.ggml.tokens"]) == rows
    edit(folder / "tokenizer.json", lambda raw: raw["added_tokens"][-1].update(content="<|tool|>"))
    with pytest.raises(InputError, match=rf"token '<\|tool\|>' has the id {rows}"):
        metadata(folder, tmp_path)


def test_added_token_that_is_not_special_is_user_defined(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    first = len(tokenizer["model"]["vocab"])

    def add(raw: dict[str, Any]) -> None:
        for offset, text in enumerate(("\u2581\u2581", "<|tool|>")):
            token = {"id": first + offset, "content": text, "special": False, "normalized": False}
            flags = {"single_word": False, "lstrip": False, "rstrip": False}
            raw["added_tokens"].append({**token, **flags})

    edit(folder / "tokenizer.json", add)
    found = metadata(folder, tmp_path)
    assert found["tokenizer.ggml.tokens"][first : first + 2] == ["  ", "<|tool|>"]
    assert found["tokenizer.ggml.token_type"][first : first + 2] == [4, 3]


@pytest.mark.parametrize("value", [1e300, 1e-300])
def test_a_number_that_float32_has_not_is_refused(tmp_path: Path, value: float) -> None:
    """llama.cpp would take the zero that a small one becomes for its own default."""
    with pytest.raises(InputError, match=r"rope\.freq_base: GGUF cannot hold the value 1e"):
        metadata(make_checkpoint(tmp_path / "tiny", rope_theta=value), tmp_path)


def test_a_template_that_adds_bos_is_told_to_llama_cpp(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first = "<|im_start|>"
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.token_to_id(first))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    found = metadata(folder, tmp_path)
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert "tokenizer.ggml.add_eos_token" not in found


@pytest.mark.parametrize("as_file", [True, False], ids=["jinja file", "named list"])
def test_chat_templates_are_found_wherever_they_are(tmp_path: Path, as_file: bool) -> None:
    folder = make_checkpoint(tmp_path / "m")
    named = [{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}]
    settings = folder / "tokenizer_config.json"
    if as_file:
        edit(settings, lambda raw: raw.pop("chat_template"))
        (folder / "chat_template.jinja").write_text("D")
    else:
        edit(settings, lambda raw: raw.update(chat_template=named))
    found = metadata(folder, tmp_path)
    assert found["tokenizer.chat_template"] == "D"
    assert found.get("tokenizer.chat_template.tool_use") == (None if as_file else "T")


def tokenizer_json(
    steps: list[dict[str, Any]], normalizer: dict[str, Any] | None = None, ignore: bool = False
) -> dict[str, Any]:
    sequence = {"type": "Sequence", "pretokenizers": steps}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": sequence if len(steps) > 1 else steps[0],
        "model": {"type": "BPE", "ignore_merges": ignore},
    }


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS = {"type": "Digits", "individual_digits": True}
WORDS = {**BYTE_LEVEL, "use_regex": True}
BYTES = {**BYTE_LEVEL, "use_regex": False}


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("gpt-2", tokenizer_json([BYTE_LEVEL])),
        ("smollm", tokenizer_json([DIGITS, WORDS])),
        ("llama-bpe", tokenizer_json([split(LLAMA3_SPLIT), BYTES], ignore=True)),
        ("dbrx", tokenizer_json([split(LLAMA3_SPLIT), BYTES])),
        (
            "qwen2",
            tokenizer_json([split(LLAMA3_SPLIT.replace("{1,3}", "")), BYTES], {"type": "NFC"}),
        ),
    ],
)
def test_known_pre_tokenizers_are_named(name: str, tokenizer: dict[str, Any]) -> None:
    assert pretokenizer_name(tokenizer) == name


@pytest.mark.parametrize(
    "tokenizer",
    [
        tokenizer_json([{**DIGITS, "individual_digits": False}, WORDS]),
        tokenizer_json([DIGITS, {**WORDS, "add_prefix_space": True}]),
        tokenizer_json([DIGITS, WORDS], {"type": "Lowercase"}),
        tokenizer_json([DIGITS, WORDS], ignore=True),
        tokenizer_json([split(LLAMA3_SPLIT + "|x"), BYTES], ignore=True),
        tokenizer_json([{"type": "Whitespace"}, BYTES]),
        tokenizer_json([BYTES]),
    ],
)
def test_a_pre_tokenizer_that_splits_differently_is_refused(tokenizer: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="pre-tokenizer known for this") as caught:
        pretokenizer_name(tokenizer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["model"].update(type="Unigram"),
        lambda raw: raw["model"].update(byte_fallback=True),
        lambda raw: raw["model"].update(end_of_word_suffix="</w>"),
        lambda raw: raw.update(decoder={"type": "Metaspace"}),
        lambda raw: raw.pop("model"),
        lambda raw: raw["model"].pop("merges"),
    ],
    ids=["unigram", "byte fallback", "suffix", "decoder", "no model", "no merges"],
)
def test_other_tokenizers_are_refused_in_one_line(tmp_path: Path, change: Change) -> None:
    folder = make_checkpoint(tmp_path / "m")
    edit(folder / "tokenizer.json", change)
    with pytest.raises(InputError, match=r"tokenizer\.json") as caught:
        export_tiny(folder, "gguf", "f32", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        (
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            134_515_008,
            ("SmolLM2 135M Instruct", "HuggingFaceTB", "135M", "SmolLM2", "Instruct", None),
        ),
        (
            "SmolLM-1.7B-Instruct-v0.2",
            1_711_376_384,
            ("SmolLM 1.7B Instruct v0.2", None, "1.7B", "SmolLM", "Instruct", "v0.2"),
        ),
        ("llama-135M", 134_515_008, ("Llama 135M", None, "135M", "llama", None, None)),
        ("my-model-128K", 134_515_008, ("My Model 128K", None, None, "my-model", "128k", None)),
    ],
)
def test_names_are_split_as_the_naming_convention_says(
    name: str, parameters: int, expected: tuple[str | None, ...]
) -> None:
    assert astuple(naming.split_name(name, parameters)) == expected


@pytest.mark.parametrize("parameters", [184_000, 1_500_000, 134_515_008, 1_711_376_384, 9_900_000])
def test_counted_size_labels_are_gguf_pys(parameters: int) -> None:
    assert naming.size_label(parameters) == size_label(parameters, 0, 0, 0)


@pytest.mark.parametrize(
    "general",
    [
        {"name": "SmolLM2 135M", "basename": "SmolLM2", "size_label": "135M"},
        {"name": "My Model", "size_label": "1.7B"},
        {"name": "x", "basename": "A", "size_label": "1B", "finetune": "it", "version": "v1"},
    ],
)
def test_files_are_named_as_the_converter_names_them(general: dict[str, str]) -> None:
    parts = [general.get(key) for key in ("name", "basename", "finetune", "version", "size_label")]
    assert naming.file_stem(general, "Q8_0") == naming_convention(*parts, "Q8_0")


def test_file_names_hold_no_awkward_characters() -> None:
    assert naming.file_stem({"name": "../my model/v1: ü"}, "Q8_0") == "my-model-v1-Q8_0"
    assert naming.file_stem({"name": "../"}, "F16") == "model-F16"
    assert len(naming.file_stem({"name": "x" * 999}, "F16")) < 200
