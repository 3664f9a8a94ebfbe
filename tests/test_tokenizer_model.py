"""A folder with only tokenizer.model: the line that refuses it says how to go on, and it works."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.gguf.tokens import NORMAL
from export.gguf.vocabulary import vocabulary_entries
from runtimes.parity.tokenizer import awkward_strings, tokenizer_mismatches
from runtimes.protocol import Runtime
from runtimes.registry import open_runtime
from tests.exported import export_tiny
from tests.sentencepiece import FromFile
from tests.tiny import TRAINING_TEXT, VOCAB

spm = pytest.importorskip("sentencepiece")
SETTINGS: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True,
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
}  # fmt: skip


def trained() -> bytes:
    """A tokenizer.model as Llama 2's: a BPE with bytes, and a space before a text."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING_TEXT * 20), model_writer=model, model_type="bpe",
        vocab_size=VOCAB - 20, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


@pytest.fixture
def folder(checkpoint_folder: Path) -> Path:
    (checkpoint_folder / "tokenizer.json").unlink()
    (checkpoint_folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS), "utf-8")
    (checkpoint_folder / "tokenizer.model").write_bytes(trained())
    return checkpoint_folder


def told(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_line_says_makes_a_tokenizer_of_the_same_ids(folder: Path, tmp_path: Path) -> None:
    """SentencePiece's own, and so transformers' and llama.cpp's, with SentencePiece's scores."""
    line = told(folder)
    assert "tokenizer.json: missing; transformers makes it from tokenizer.model" in line
    _, install, command = (part.strip() for part in line.split(";", 2))
    assert install.endswith("pip install sentencepiece protobuf")
    python, *arguments = shlex.split(command)
    assert python == "python"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "USE_TORCH": "0"}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=offline, check=True)

    model = spm.SentencePieceProcessor(model_proto=(folder / "tokenizer.model").read_bytes())
    made = FromFile(folder)
    special = {"<s>", "</s>", "<unk>"}
    texts = [text for text in awkward_strings() if not any(t in text for t in special)]
    plain = [text for text in texts if not text.startswith((" ", "\u2581")) and text]
    assert len(plain) > 3000
    assert [made.tokenize(text) for text in plain] == model.encode(plain)

    found = vocabulary_entries(open_checkpoint(folder), space_prefix=False)
    entries = {item.key.removeprefix("tokenizer.ggml."): item.value for item in found}
    ordinary = [i for i, kind in enumerate(entries["token_type"]) if kind == NORMAL]
    assert [entries["scores"][i] for i in ordinary] == [model.get_score(i) for i in ordinary]

    pytest.importorskip("llama_cpp")
    runtime = open_runtime(export_tiny(folder, "gguf", "f32", tmp_path), 1)
    try:
        compared = tokenizer_mismatches(runtime, cast(Runtime, made), [])
    finally:
        runtime.close()
    assert compared.wrong == 0, compared
    assert compared.strings > 3000


def test_other_files_that_a_tokenizer_is_made_from_need_no_package(folder: Path) -> None:
    (folder / "tokenizer.model").rename(folder / "vocab.json")
    assert "makes it from vocab.json, in this folder: python -c" in told(folder)
