"""Tiny tokenizer.json files of SentencePiece's kinds, made by hand: BPE with bytes, and Unigram."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tests.tiny import SPECIAL

SPACE = "\u2581"
PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
LEGACY: dict[str, Any] = {
    "normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]},
    "pre_tokenizer": None,
}
GEMMA: dict[str, Any] = {
    "normalizer": REPLACE,
    "pre_tokenizer": {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
        "invert": False,
    },
}  # fmt: skip


def metaspace(scheme: str, *, split: bool = False) -> dict[str, Any]:
    """As transformers 5 writes Llama's."""
    step = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}
    return {"normalizer": None, "pre_tokenizer": step}


# In the order in which they are merged; each of two pieces that come before it or are characters.
PIECES = [
    f"{SPACE}t",
    "he",
    f"{SPACE}the",
    f"{SPACE}a",
    "in",
    "re",
    f"{SPACE}th",
    f"{SPACE}in",
    "ing",
]
LETTERS = [SPACE, *"abcdefghijklmnopqrstuvwxyz.,0123456789T"]


def tokenizer(front: dict[str, Any], pieces: list[str] | None = None) -> dict[str, Any]:
    """A tokenizer.json: special tokens, <unk>, bytes, pieces, characters, one token of a user."""
    made = PIECES if pieces is None else pieces
    texts = [*SPECIAL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *made, *LETTERS]
    vocab = {text: index for index, text in enumerate(texts)}
    merges = [
        [text[:cut], text[cut:]]
        for text in made
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    added = [_added(text, index, special=True) for index, text in enumerate(SPECIAL)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*added, _added("[USER]", len(texts), special=False)],
        **front,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False, "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip


UNIGRAM_PIECES = [
    f"{SPACE}the", "the", "ing", "in", "ng", f"{SPACE}in", f"{SPACE}a", "re", "er", "he", "th",
    "an", "10", "00", "000", "ль", "日本", "naï", "...", "=>", "__",
]  # fmt: skip
UNIGRAM_LETTERS = [*LETTERS, *"ABCDEFGHIJKLMNOPQRSUVWXYZхлебφ海日本語ïéß'\n\t/=>_(){}[]"]


def unigram(front: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json: special tokens, <unk>, pieces and characters with scores, a user's token.

    Longer pieces have the better scores, of which no two sums are alike.
    """
    texts = [*SPECIAL, "<unk>", *UNIGRAM_PIECES, *UNIGRAM_LETTERS]
    vocab = [
        [
            text,
            0.0 if index < len(SPECIAL) + 1 else -float(np.float32(4 + index**1.1 / 9 - len(text))),
        ]
        for index, text in enumerate(texts)
    ]
    document = tokenizer(front)
    document["added_tokens"][-1]["id"] = len(texts)
    return {
        **document,
        "decoder": {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        "model": {
            "type": "Unigram", "unk_id": len(SPECIAL), "vocab": vocab, "byte_fallback": False,
        },
    }  # fmt: skip


def with_sentencepiece(folder: Path, document: dict[str, Any]) -> Path:
    """Give a tiny checkpoint this tokenizer instead of its own."""
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    return folder


def _added(text: str, index: int, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": text, **flags, "special": special}


class FromFile:
    """A tokenizer.json in the tokenizers library, as transformers runs it."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def tokenize_whole(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=True).ids)
