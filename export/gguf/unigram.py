"""A SentencePiece Unigram as llama.cpp's t5 vocabulary ("UGM"), which any architecture may have.

Both look for the tokens whose scores have the largest sum, where a character that is no token
counts as the lowest score less 10. llama.cpp's llama vocabulary, under which its converter puts a
Unigram of a decoder, joins neighbours by score instead, which gives other tokens.

Keys and types: conversion/t5.py, `T5Model.set_vocab`; how llama.cpp splits: src/llama-vocab.cpp,
`llm_tokenizer_ugm_session`. It reads no bytes where a character is no token
(https://github.com/ggml-org/llama.cpp/issues/28862), so a Unigram with `byte_fallback` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from export.gguf.metaspace import SPACE, space_prefix
from export.gguf.tokens import NORMAL, UNKNOWN, UNUSED, Vocabulary, VocabularyKind, laid_out

# Scores of added tokens, which llama.cpp finds before all others, and of ids without a token.
ADDED_SCORE = -1000.0
OTHER_SCORES = {UNUSED: -10000.0}

Json = Mapping[str, Any]


def _claims(tokenizer: Json) -> bool:
    return bool(tokenizer["model"].get("type") == "Unigram")


def _read(tokenizer: Json, vocab: int) -> Vocabulary:
    model = tokenizer["model"]
    if model.get("byte_fallback"):
        raise InputError(
            "tokenizer.json: a Unigram with byte_fallback: llama.cpp has no bytes in such"
            " vocabularies and would read every character that is no token, mostly line ends too,"
            " as unknown; export this model to ONNX or MLC instead"
        )
    pieces = [(str(text), float(score)) for text, score in model["vocab"]]
    unknown = model.get("unk_id")
    if not isinstance(unknown, int) or not 0 <= unknown < len(pieces):
        raise InputError(
            f"tokenizer.json: unk_id {unknown!r}: a Unigram without an unknown token cannot read"
            " every text"
        )
    own = {
        index: (text, UNKNOWN if index == unknown else NORMAL)
        for index, (text, _) in enumerate(pieces)
    }
    tokens, types = laid_out(tokenizer, own, vocab)
    normal = {tokens[index]: index for index, kind in enumerate(types) if kind == NORMAL}
    if SPACE not in normal:
        raise InputError(
            "tokenizer.json: ▁ is no token, so that spaces are unknown; llama.cpp would join"
            " unknown characters of different words"
        )
    _check_lowest(pieces, normal)
    prefix = space_prefix(tokenizer, normal)
    scores = [
        pieces[index][1] if kind in (NORMAL, UNKNOWN) else OTHER_SCORES.get(kind, ADDED_SCORE)
        for index, kind in enumerate(types)
    ]
    return Vocabulary(
        "t5", "default", tokens, types, scores,
        space_prefix=prefix, merges_spaces=False, ends_texts=True, unknown=unknown,
    )  # fmt: skip


def _check_lowest(pieces: list[tuple[str, float]], normal: Mapping[str, int]) -> None:
    """llama.cpp takes the lowest score of the ordinary tokens, the tokenizers library of all."""
    text, lowest = min(pieces, key=lambda piece: piece[1])
    if lowest < min(pieces[index][1] for index in normal.values()):
        raise InputError(
            f"tokenizer.json: {text!r}, which is no ordinary token, has the lowest score, by which"
            " unknown characters are counted; llama.cpp counts them by the ordinary tokens'"
        )


UNIGRAM = VocabularyKind("a SentencePiece Unigram", _claims, _read)
