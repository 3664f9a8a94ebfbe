"""SentencePiece Unigrams in GGUF: llama.cpp finds the same best tokens, or the file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from edgeproof.errors import InputError
from export.checkpoint import open_checkpoint
from export.gguf.tokens import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from export.gguf.vocabulary import vocabulary_entries
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.tokenizer import tokenizer_mismatches, wrapping_fault
from runtimes.protocol import AddedToken, Runtime, WrappingRuntime
from runtimes.registry import open_runtime
from tests.exported import export_tiny
from tests.sentencepiece import (
    GEMMA,
    LEGACY,
    UNIGRAM_LETTERS,
    UNIGRAM_PIECES,
    FromFile,
    metaspace,
    unigram,
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
        pytest.param(GEMMA, True, id="no space"),
        pytest.param(metaspace("never", split=True), True, id="no space, split at spaces"),
        pytest.param(LEGACY, False, id="a space before each stretch"),
        pytest.param(metaspace("first"), False, id="before the text only"),
    ],
)
def test_llama_cpp_makes_the_same_tokens(
    checkpoint_folder: Path, tmp_path: Path, front: Json, exact: bool
) -> None:
    """Characters that are no token among them. Nothing is put around a text, as the file says."""
    pytest.importorskip("llama_cpp")
    folder = with_sentencepiece(checkpoint_folder, unigram(front))
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    assert compare_metadata(artifact, folder) == ()
    reference, added = FromFile(folder), [AddedToken("[USER]", False)]
    runtime = open_runtime(artifact, 1)
    try:
        found = tokenizer_mismatches(runtime, cast(Runtime, reference), added)
        assert wrapping_fault(runtime, cast(WrappingRuntime, reference)) is None
    finally:
        runtime.close()
    assert found.wrong == 0, found
    assert (found.apart == 0) is exact
    assert found.strings > 4000


def test_scores_are_the_tokenizers(checkpoint_folder: Path) -> None:
    document = unigram(GEMMA)
    found = entries(with_sentencepiece(checkpoint_folder, document))
    pieces, first = len(UNIGRAM_PIECES) + len(UNIGRAM_LETTERS), len(SPECIAL) + 1
    unused = VOCAB - first - pieces - 1
    assert (found["model"], found["pre"]) == ("t5", "default")
    assert found["token_type"] == [
        *[CONTROL] * len(SPECIAL), UNKNOWN, *[NORMAL] * pieces, USER_DEFINED, *[UNUSED] * unused,
    ]  # fmt: skip
    assert found["scores"] == [
        *[-1000.0] * len(SPECIAL), 0.0, *[row[1] for row in document["model"]["vocab"][first:]],
        -1000.0, *[-10000.0] * unused,
    ]  # fmt: skip
    # llama.cpp's own defaults would be another unknown token and an end after each text.
    assert found["unknown_token_id"] == len(SPECIAL)
    assert found["add_eos_token"] is found["add_space_prefix"] is False
    assert found["remove_extra_whitespaces"] is False


def no_space(raw: Json) -> None:
    rows = raw["model"]["vocab"]
    rows[next(i for i, row in enumerate(rows) if row[0] == "\u2581")][0] = "ж"


def across_words(raw: Json) -> None:
    raw.update(metaspace("never", split=True))
    raw["model"]["vocab"][-1][0] = "a\u2581b"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw: raw["model"].update(byte_fallback=True), "every character that is no token"),
        (lambda raw: raw["model"].update(unk_id=None), "unk_id None"),
        (no_space, "▁ is no token"),
        (across_words, "is never made"),
        (lambda raw: raw["model"]["vocab"][0].__setitem__(1, -99.0), "has the lowest score"),
        (lambda raw: raw.update(normalizer={"type": "NFKC"}), r"\(NFKC \+ Split\) are not"),
        (lambda raw: raw["model"].update(vocab=[["a"]]), "cannot be opened"),
    ],
)
def test_what_llama_cpp_would_split_otherwise_is_refused(
    checkpoint_folder: Path, change: Callable[[Json], object], told: str
) -> None:
    document = unigram(GEMMA)
    change(document)
    with pytest.raises(InputError, match=told) as caught:
        entries(with_sentencepiece(checkpoint_folder, document))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [4, -1])
def test_a_changed_score_is_a_difference(
    checkpoint_folder: Path, tmp_path: Path, place: int
) -> None:
    folder = with_sentencepiece(checkpoint_folder, unigram(GEMMA))
    artifact = export_tiny(folder, "gguf", "f32", tmp_path)
    document = unigram(GEMMA)
    document["model"]["vocab"][place][1] -= 0.5
    with_sentencepiece(folder, document)
    (found,) = compare_metadata(artifact, folder)
    assert "tokenizer.ggml.scores" in str(found)
