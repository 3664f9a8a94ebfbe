"""A SentencePiece BPE (Llama 2, TinyLlama, Mistral 7B, Gemma) as llama.cpp's llama vocabulary.

llama.cpp joins the two neighbours whose joint text is the token with the highest score; the
tokenizers library joins the pair that comes first in the list of merges. SentencePiece's BPE gives
its pieces the scores 0, -1, -2, … in the order in which they were merged (`bpe_model_trainer.cc`),
so that the merges of a tokenizer.json made from a tokenizer.model tell the scores again.

Types and scores of other tokens as in convert_hf_to_gguf.py, `_create_vocab_sentencepiece`; how
llama.cpp splits: src/llama-vocab.cpp, `llm_tokenizer_spm`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from edgeproof.errors import InputError
from export.gguf.metaspace import space_prefix
from export.gguf.tokens import (
    BYTE,
    NORMAL,
    UNKNOWN,
    UNUSED,
    Vocabulary,
    VocabularyKind,
    laid_out,
)
from export.llamacpp.pieces import pairs

BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
# Scores of what no merge makes: bytes and the unknown token; added tokens; ids without a token.
META_SCORE, ADDED_SCORE, UNUSED_SCORE = 0.0, -1000.0, -10000.0
# Settings of the model that must not be on.
REFUSED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")

Json = Mapping[str, Any]
Pair = tuple[str, str]
log = logging.getLogger(__name__)


def _claims(tokenizer: Json) -> bool:
    model = tokenizer["model"]
    return bool(model.get("type", "BPE") == "BPE" and model.get("byte_fallback"))


def _read(tokenizer: Json, vocab: int) -> Vocabulary:
    model = tokenizer["model"]
    for key in REFUSED:
        if model.get(key):
            raise InputError(
                f"tokenizer.json: {key} = {model[key]!r} does not exist in llama.cpp's"
                " SentencePiece vocabulary"
            )
    if missing := sorted(BYTES - set(model["vocab"])):
        raise InputError(
            f"tokenizer.json: {len(missing)} byte tokens are missing, {missing[0]} first;"
            " llama.cpp writes characters that are no token with them"
        )
    own = {index: (text, _type(text, model)) for text, index in model["vocab"].items()}
    tokens, types = laid_out(tokenizer, own, vocab)
    normal = {tokens[index]: index for index, kind in enumerate(types) if kind == NORMAL}
    merged = _merged([_pair(merge) for merge in model["merges"]], normal)
    scores = _scores(merged, normal, types)
    prefix = space_prefix(tokenizer, normal)
    return Vocabulary("llama", "default", tokens, types, scores, space_prefix=prefix)


def _type(text: str, model: Json) -> int:
    if text in BYTES:
        return BYTE
    return UNKNOWN if text == model.get("unk_token") else NORMAL


def _pair(merge: str | Sequence[str]) -> Pair:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _merged(merges: Sequence[Pair], normal: Mapping[str, int]) -> dict[str, int]:
    """What merges make of ordinary tokens, in their order: text → id.

    Raises:
        InputError: llama.cpp would join two tokens that the list does not.
    """
    known, merged, last = set(merges), dict[str, int](), ""
    scattered = False
    for left, right in merges:
        text = left + right
        if text in normal:
            scattered = scattered or (text in merged and text != last)
            merged.setdefault(text, normal[text])
            last = text
    for left, right in pairs(normal, normal, "tokenizer.json"):
        if (left, right) not in known:
            raise InputError(
                f"tokenizer.json: no merge of {left!r} and {right!r}, which llama.cpp would join,"
                f" as {left + right!r} is a token: this BPE is none of SentencePiece's"
            )
    if scattered:
        log.warning(
            "tokenizer.json: merges that make the same token do not follow each other; llama.cpp"
            " has one score for each token, so that some texts may get other tokens"
        )
    return merged


def _scores(
    merged: Mapping[str, int], normal: Mapping[str, int], types: Sequence[int]
) -> list[float]:
    """Of the ordinary tokens by id, as SentencePiece has them, where ids are in merges' order.

    Else by place in the list of merges, single characters last.
    """
    by_type = {BYTE: META_SCORE, UNKNOWN: META_SCORE, UNUSED: UNUSED_SCORE}
    scores = [by_type.get(kind, ADDED_SCORE) for kind in types]
    order = list(merged.values())
    if order != sorted(order):
        placed = set(order)
        rest = [index for index in sorted(normal.values()) if index not in placed]
        order = [*order, *rest]
    else:
        order = sorted(normal.values())
    for place, index in enumerate(order):
        scores[index] = 0.0 - place
    return scores


SENTENCEPIECE = VocabularyKind("a SentencePiece BPE with byte_fallback", _claims, _read)
