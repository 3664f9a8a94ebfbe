"""SentencePiece vocabularies in GGUF: llama.cpp makes the same tokens of every text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.gguf.tokens import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from export.gguf.vocabulary import vocabulary_entries
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.tokenizer import tokenizer_mismatches
from runtimes.protocol import AddedToken, Runtime
from runtimes.registry import open_runtime
from tests.exported import export_tiny
from tests.sentencepiece import (
    GEMMA,
    LEGACY,
    LETTERS,
    PIECES,
    FromFile,
    metaspace,
    tokenizer,
    with_sentencepiece,
)
from tests.tiny import SPECIAL, VOCAB

Json = dict[str, Any]


def entries(folder: Path) -> Json:
    found = vocabulary_entries(open_checkpoint(folder), space_prefix=True)
    return {item.key.removeprefix("tokenizer.ggml."): item.value for item in found}


@pytest.mark.parametrize(
    ("front", "exact"),
    [
        pytest.param(LEGACY, True, id="a space before each stretch"),
        pytest.param(GEMMA, True, id="none, as Gemma"),
        pytest.param(metaspace("never"), True, id="none, as add_prefix_space false"),
        pytest.param(metaspace("first"), False, id="before the text only"),
    ],
)
def test_llama_cpp_makes_the_same_tokens(
    checkpoint_folder: Path, tmp_path: Path, front: Json, exact: bool
) -> None:
    """Strings with what llama.cpp cannot say are set apart; without them all are compared."""
    pytest.importorskip("llama_cpp")
    folder = with_sentencepiece(checkpoint_folder, tokenizer(front))
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    assert compare_metadata(artifact, folder) == ()
    runtime, added = open_runtime(artifact, 1), [AddedToken("[USER]", False)]
    try:
        found = tokenizer_mismatches(runtime, cast(Runtime, FromFile(folder)), added)
    finally:
        runtime.close()
    assert found.wrong == 0, found
    assert (found.apart == 0) is exact
    assert found.strings > 4000


def test_types_and_scores_are_sentencepieces(checkpoint_folder: Path) -> None:
    """Scores fall by one from the first piece on, whatever is a piece."""
    document = tokenizer(LEGACY)
    found = entries(with_sentencepiece(checkpoint_folder, document))
    first = len(SPECIAL) + 1 + 256
    pieces = len(PIECES) + len(LETTERS)
    unused = VOCAB - first - pieces - 1
    assert found["model"] == "llama"
    assert "merges" not in found
    assert found["token_type"] == [
        *[CONTROL] * len(SPECIAL), UNKNOWN, *[BYTE] * 256, *[NORMAL] * pieces, USER_DEFINED,
        *[UNUSED] * unused,
    ]  # fmt: skip
    assert found["scores"] == [
        *[-1000.0] * len(SPECIAL), *[0.0] * 257, *[-float(n) for n in range(pieces)], -1000.0,
        *[-10000.0] * unused,
    ]  # fmt: skip
    assert "add_space_prefix" not in found  # llama.cpp's own default, which the converter leaves


def test_scores_follow_merges_where_ids_do_not(checkpoint_folder: Path) -> None:
    document = tokenizer(GEMMA)
    merges = document["model"]["merges"]
    document["model"]["merges"] = merges[::-1]
    found = entries(with_sentencepiece(checkpoint_folder, document))
    made = ["".join(merge) for merge in merges[::-1]]
    scores = dict(zip(found["tokens"], found["scores"], strict=True))
    order = sorted(scores, key=lambda text: -scores[text])
    assert [text for text in order if text in set(made)] == list(dict.fromkeys(made))
    assert scores["q"] < min(scores[text] for text in made)
    assert found["add_space_prefix"] is False


def no_byte(raw: Json) -> None:
    del raw["model"]["vocab"]["<0x7F>"]
    raw["model"]["vocab"]["x7F"] = len(SPECIAL) + 1 + 0x7F


def lost_merge(raw: Json) -> None:
    raw["model"]["merges"].remove(["in", "g"])
    raw["model"]["merges"].append(["i", "ng"])
    raw["model"]["vocab"]["ng"] = 370


def across_words(raw: Json) -> None:
    raw.update(metaspace("never", split=True))
    raw["model"]["vocab"]["a\u2581"] = 370
    raw["model"]["merges"].append(["a", "\u2581"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (no_byte, "1 byte tokens are missing, <0x7F>"),
        (lost_merge, "no merge of 'in' and 'g', which llama.cpp would join"),
        (across_words, "is never made"),
        (lambda raw: raw["model"].update(ignore_merges=True), "ignore_merges = True"),
        (lambda raw: raw.update(normalizer={"type": "NFKC"}), r"\(NFKC \+ Split\) are not"),
        (lambda raw: raw["model"].update(merges=["a"]), "not understood"),
    ],
)
def test_what_llama_cpp_would_split_otherwise_is_refused(
    checkpoint_folder: Path, change: Callable[[Json], object], told: str
) -> None:
    document = tokenizer(GEMMA)
    change(document)
    with pytest.raises(InputError, match=told):
        entries(with_sentencepiece(checkpoint_folder, document))


def test_tokens_that_are_found_after_normalising_are_named(
    checkpoint_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = tokenizer(LEGACY)
    document["added_tokens"][-1]["normalized"] = True
    with caplog.at_level(logging.WARNING):
        entries(with_sentencepiece(checkpoint_folder, document))
    assert "'[USER]' are searched after a space was put before" in caplog.text


def test_a_changed_score_is_a_difference(checkpoint_folder: Path, tmp_path: Path) -> None:
    """What would make llama.cpp merge in another order."""
    folder = with_sentencepiece(checkpoint_folder, tokenizer(LEGACY))
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    document = tokenizer(LEGACY)
    merges = document["model"]["merges"]
    merges.insert(0, merges.pop(3))
    with_sentencepiece(folder, document)
    (found,) = compare_metadata(artifact, folder)
    assert "tokenizer.ggml.scores" in str(found)
