"""Byte-level tokenizers in GGUF whose words llama.cpp finds with expressions of its own."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from export.llamacpp.pre_types import PRE_TYPES
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.tokenizer import awkward_strings, tokenizer_mismatches
from runtimes.protocol import OwnTokenizerRuntime, Runtime
from runtimes.registry import open_runtime
from tests import tiny
from tests.exported import export_tiny
from tests.sentencepiece import FromFile

VOCAB = 2000
# What the expressions differ in; each is a text by itself that the others do not hide.
CASES = [
    "éÉ ÉCOLE École naÏve", "हिन्दी में नमस्ते", "ΑΒΓαβγ Привет ПРИВЕТ ПрИвЕт", "e\u0301cole",
    "\u3000日本", "HTTPServer camelCase it'S O'Neil a/b//c ../..\n/x 12345678",
    "ภาษาไทย 日本語 한국어",
]  # fmt: skip


def with_pre_tokenizer(folder: Path, pre: str) -> Path:
    """A byte-level BPE with the steps of `pre`, whose merges cross borders that these draw."""
    kind = PRE_TYPES[pre]
    tokenizer = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = whole
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=tiny.SPECIAL,
        initial_alphabet=whole.alphabet(),
        show_progress=False,
    )
    texts = [text for text in awkward_strings() if "<|" not in text][::3]
    tokenizer.train_from_iterator([*texts, *CASES * 50], trainer)
    raw: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    raw["model"] = {
        **json.loads(tokenizer.to_str())["model"],
        "ignore_merges": kind.ignore_merges,
    }
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    raw["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [*kind.splits, {**last, "use_regex": kind.gpt2_words}],
    }
    raw["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(raw), "utf-8")
    return folder


@pytest.mark.parametrize("pre", ["gpt-4o", "tekken", "deepseek-coder"])
def test_texts_are_set_apart_only_where_llama_cpps_expression_differs(
    tmp_path: Path, pre: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All other texts have the tokenizer's own ids, and a line says which have not."""
    pytest.importorskip("llama_cpp")
    folder = tiny.make_checkpoint(tmp_path / "checkpoint", vocab_size=VOCAB, num_hidden_layers=1)
    folder = with_pre_tokenizer(folder, pre)
    with caplog.at_level(logging.WARNING):
        artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    assert f"llama.cpp's {pre} splits" in caplog.text
    assert compare_metadata(artifact, folder) == ()
    reference = FromFile(folder)
    runtime = open_runtime(artifact, 1)
    assert isinstance(runtime, OwnTokenizerRuntime)
    try:
        found = tokenizer_mismatches(runtime, cast(Runtime, reference), [])
        other = [text for text in CASES if runtime.tokenize(text) != reference.tokenize(text)]
        apart = [text for text in CASES if runtime.splits_otherwise(text)]
    finally:
        runtime.close()
    assert found.wrong == 0, found
    assert found.strings > 4900
    assert other
    assert set(other) <= set(apart) < set(CASES)
