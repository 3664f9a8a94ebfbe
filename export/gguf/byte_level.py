"""A byte-level BPE as llama.cpp's gpt2 vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from export.gguf.pretokenizer import pretokenizer_name
from export.gguf.tokens import NORMAL, Vocabulary, VocabularyKind, laid_out

Json = Mapping[str, Any]


def _claims(tokenizer: Json) -> bool:
    model, decoder = tokenizer["model"], tokenizer.get("decoder") or {}
    bpe = model.get("type", "BPE") == "BPE" and not model.get("byte_fallback")
    return bool(bpe and decoder.get("type") == "ByteLevel")


def _read(tokenizer: Json, vocab: int) -> Vocabulary:
    model = tokenizer["model"]
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise InputError(f"tokenizer.json: {key} = {model[key]!r} does not exist in llama.cpp")
    own = {index: (text, NORMAL) for text, index in model["vocab"].items()}
    tokens, types = laid_out(tokenizer, own, vocab)
    return Vocabulary(
        "gpt2", pretokenizer_name(tokenizer), tokens, types, merges=_merges(model["merges"])
    )


def _merges(merges: list[Any]) -> list[str]:
    """Pairs (tokenizers ≥ 0.20) or already "left right"; a space within a part is written Ġ."""
    texts = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    for index, text in enumerate(texts):
        if text.count(" ") != 1:
            left, right = merges[index]
            texts[index] = f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}"
    return texts


BYTE_LEVEL = VocabularyKind("a byte-level BPE", _claims, _read)
