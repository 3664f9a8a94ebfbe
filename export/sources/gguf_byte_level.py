"""A byte-level BPE of a GGUF file (`gpt2`), which has its merges, as parts of tokenizer.json.

Invariant: every merge joins two tokens into a third.
"""

from __future__ import annotations

from edgeproof.errors import InputError
from export.llamacpp.pre_types import PreType, pre_type
from export.sources.gguf_tokens import Json, Parts, Tokens, bpe


def byte_level(tokens: Tokens) -> Parts:
    """See `ReadParts`; also refuses an unknown pre-tokenizer."""
    kind = pre_type(tokens.meta.text("tokenizer.ggml.pre"), str(tokens.meta.path))
    return Parts(
        normalizer=kind.normalizer,
        pre_tokenizer=_pre_tokenizer(kind),
        decoder=_byte_level(use_regex=True),
        model=bpe(tokens.known, _merges(tokens), ignore_merges=kind.ignore_merges),
        add_bos=kind.add_bos,
    )


def _merges(tokens: Tokens) -> list[list[str]]:
    merges = []
    for text in tokens.meta.texts("tokenizer.ggml.merges"):
        left, space, right = text.partition(" ")
        if not space or not {left, right, left + right} <= tokens.ids.keys():
            raise InputError(
                f"{tokens.meta.path}: tokenizer.ggml.merges has {text!r}, which joins no two tokens"
            )
        merges.append([left, right])
    return merges


def _byte_level(use_regex: bool) -> Json:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _pre_tokenizer(kind: PreType) -> Json:
    last = _byte_level(kind.gpt2_words)
    return {"type": "Sequence", "pretokenizers": [*kind.splits, last]} if kind.splits else last
