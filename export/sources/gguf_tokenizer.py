"""Hugging Face tokenizer files from a GGUF file's metadata.

Invariant: ids are the file's; every merge joins two tokens into a third. The files are written as
data, so their bytes do not depend on the version of the tokenizers library.
"""

from __future__ import annotations

from typing import Any

from edgeproof.errors import InputError
from export.llamacpp.pre_types import PreType, pre_type
from export.sources.gguf_metadata import Metadata

# Values of tokenizer.ggml.token_type.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# Role in tokenizer_config.json → the word in the metadata key.
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def tokenizer_files(meta: Metadata, max_positions: int) -> dict[str, dict[str, Any]]:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json, parsed.

    Raises:
        InputError: no byte-level BPE, an unknown pre-tokenizer, or inconsistent lists.
    """
    model = meta.text("tokenizer.ggml.model")
    if model != "gpt2":
        raise InputError(
            f"{meta.path}: tokenizer model {model!r} is not supported, only byte-level BPE ('gpt2')"
            " is; use the original Hugging Face checkpoint"
        )
    kind = pre_type(meta.text("tokenizer.ggml.pre"), str(meta.path))
    vocabulary = _vocabulary(meta)
    special = _special_tokens(meta, list(vocabulary))
    added = _added_tokens(meta, list(vocabulary), set(special.values()))
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": kind.normalizer,
            "pre_tokenizer": _pre_tokenizer(kind),
            "post_processor": _post_processor(meta, kind, special, vocabulary),
            "decoder": _byte_level(use_regex=True),
            "model": _model(kind, vocabulary, _merges(meta, vocabulary)),
        },
        "tokenizer_config.json": _settings(meta, special, added, max_positions),
        "special_tokens_map.json": dict(special),
    }


def _vocabulary(meta: Metadata) -> dict[str, int]:
    tokens = meta.texts("tokenizer.ggml.tokens")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise InputError(f"{meta.path}: tokenizer.ggml.tokens holds a token twice; damaged file")
    return vocabulary


def _merges(meta: Metadata, vocabulary: dict[str, int]) -> list[list[str]]:
    merges = []
    for text in meta.texts("tokenizer.ggml.merges"):
        left, space, right = text.partition(" ")
        if not space or not {left, right, left + right} <= vocabulary.keys():
            raise InputError(
                f"{meta.path}: tokenizer.ggml.merges has {text!r}, which joins no two tokens"
            )
        merges.append([left, right])
    return merges


def _special_tokens(meta: Metadata, tokens: list[str]) -> dict[str, str]:
    found = {}
    for role, word in SPECIAL.items():
        key = f"tokenizer.ggml.{word}_token_id"
        if key in meta:
            index = meta.integer(key)
            if not 0 <= index < len(tokens):
                raise InputError(
                    f"{meta.path}: {key} = {index}, but there are {len(tokens)} tokens"
                )
            found[role] = tokens[index]
    return found


def _added_tokens(meta: Metadata, tokens: list[str], named: set[str]) -> list[dict[str, Any]]:
    types = meta.integers("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise InputError(f"{meta.path}: tokenizer.ggml.token_type and tokens differ in length")
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL or token in named,
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in {CONTROL, USER_DEFINED} or token in named
    ]


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _pre_tokenizer(kind: PreType) -> dict[str, Any]:
    last = _byte_level(kind.gpt2_words)
    return {"type": "Sequence", "pretokenizers": [*kind.splits, last]} if kind.splits else last


def _model(kind: PreType, vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": kind.ignore_merges,
        "vocab": vocabulary,
        "merges": merges,
    }


def _post_processor(
    meta: Metadata, kind: PreType, special: dict[str, str], vocabulary: dict[str, int]
) -> dict[str, Any] | None:
    """Put the begin and end tokens around a text where the file asks for it."""
    wanted = {
        "bos_token": meta.flag("tokenizer.ggml.add_bos_token", kind.add_bos),
        "eos_token": meta.flag("tokenizer.ggml.add_eos_token", False),
    }
    for role, add in wanted.items():
        if add and role not in special:
            key = f"tokenizer.ggml.{SPECIAL[role]}_token_id"
            raise InputError(f"{meta.path}: the tokenizer adds {role} but {key} is missing")
    used = {role: special[role] for role, add in wanted.items() if add}
    if not used:
        return None
    marks = {role: [{"SpecialToken": {"id": token, "type_id": 0}}] for role, token in used.items()}
    begin, end = marks.get("bos_token", []), marks.get("eos_token", [])
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*begin, first, *end],
        "pair": [*begin, first, *end, *begin, second, *end],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]}
            for token in used.values()
        },
    }


def _settings(
    meta: Metadata, special: dict[str, str], added: list[dict[str, Any]], max_positions: int
) -> dict[str, Any]:
    """tokenizer_config.json.

    The class is the generic one: with `GPT2Tokenizer`, transformers 5 drops the pre-tokenizer.
    """
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added
        },
        **special,
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    template = meta.text("tokenizer.chat_template", "")
    return {**settings, "chat_template": template} if template else settings
