"""Hugging Face tokenizer files from a GGUF file's metadata.

Invariant: ids are the file's. The files are written as data, so their bytes do not depend on the
version of the tokenizers library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeproof.errors import InputError
from export.sources.gguf_byte_level import byte_level
from export.sources.gguf_metadata import Metadata
from export.sources.gguf_sentencepiece import sentencepiece
from export.sources.gguf_tokens import SPECIAL, Json, Parts, ReadParts, Tokens

# By `tokenizer.ggml.model`.
KINDS: Mapping[str, ReadParts] = {"gpt2": byte_level, "llama": sentencepiece}


def tokenizer_files(meta: Metadata, max_positions: int) -> dict[str, dict[str, Any]]:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json, parsed.

    Raises:
        InputError: an unknown kind of tokenizer, an unknown pre-tokenizer, or inconsistent lists.
    """
    model = meta.text("tokenizer.ggml.model")
    if model not in KINDS:
        raise InputError(
            f"{meta.path}: tokenizer model {model!r} is not supported, only byte-level BPE ('gpt2')"
            " and SentencePiece ('llama') are; use the original Hugging Face checkpoint"
        )
    tokens = Tokens(meta)
    parts, added = KINDS[model](tokens), tokens.added()
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": parts.normalizer,
            "pre_tokenizer": parts.pre_tokenizer,
            "post_processor": _post_processor(tokens, parts),
            "decoder": parts.decoder,
            "model": parts.model,
        },
        "tokenizer_config.json": _settings(tokens, added, max_positions),
        "special_tokens_map.json": dict(tokens.special),
    }


def _post_processor(tokens: Tokens, parts: Parts) -> Json | None:
    """Put the begin and end tokens around a text where the file asks for it."""
    meta, special = tokens.meta, tokens.special
    wanted = {
        "bos_token": meta.flag("tokenizer.ggml.add_bos_token", parts.add_bos),
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
            token: {"id": token, "ids": [tokens.ids[token]], "tokens": [token]}
            for token in used.values()
        },
    }


def _settings(tokens: Tokens, added: list[Json], max_positions: int) -> Json:
    """tokenizer_config.json.

    The class is the generic one: with `GPT2Tokenizer`, transformers 5 drops the pre-tokenizer.
    """
    settings: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added
        },
        **tokens.special,
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    template = tokens.meta.text("tokenizer.chat_template", "")
    return {**settings, "chat_template": template} if template else settings
