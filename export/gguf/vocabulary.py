"""`tokenizer.*` metadata: a byte-level BPE tokenizer.json as llama.cpp's gpt2 vocabulary.

Keys and token types as in convert_hf_to_gguf.py (_set_vocab_gpt2) and gguf-py's SpecialVocab.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeproof.checkpoints.chat_template import DEFAULT, chat_templates
from edgeproof.checkpoints.tokenizer import around
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.gguf.container import BOOL, INT32, STRING, MetadataEntry
from export.gguf.pretokenizer import pretokenizer_name
from export.gguf.special_tokens import special_entries

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's llama_token_type
log = logging.getLogger(__name__)

# Brackets of tokens that are control tokens even where the tokenizer does not mark them.
CONTROL_BRACKETS = (("<|", "|>"), ("<｜", "｜>"))


def vocabulary_entries(checkpoint: Checkpoint, *, space_prefix: bool) -> list[MetadataEntry]:
    """All `tokenizer.*` entries; `space_prefix` to repeat what the settings say on that.

    Raises:
        InputError: not a byte-level BPE, one that llama.cpp would split differently, or token ids
            beyond the model's vocabulary.
    """
    try:
        tokenizer, settings = checkpoint.tokenizer, checkpoint.settings
        _check_byte_level_bpe(tokenizer)
        tokens, types = _tokens(tokenizer, checkpoint.config.vocab)
        special = special_entries(checkpoint, tokens)
        entries = [
            MetadataEntry("tokenizer.ggml.model", STRING, "gpt2"),
            MetadataEntry("tokenizer.ggml.pre", STRING, pretokenizer_name(tokenizer)),
            MetadataEntry("tokenizer.ggml.tokens", STRING, tokens),
            MetadataEntry("tokenizer.ggml.token_type", INT32, types),
            MetadataEntry("tokenizer.ggml.merges", STRING, _merges(tokenizer["model"]["merges"])),
            *special,
            *_flags(tokenizer, special),
            *_chat_template(checkpoint),
            *(_space_prefix(settings) if space_prefix else ()),
        ]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{checkpoint.path / 'tokenizer.json'}: not understood ({error!r}); save the tokenizer"
            " again with transformers' save_pretrained"
        ) from None
    return entries


def _check_byte_level_bpe(tokenizer: Mapping[str, Any]) -> None:
    model, decoder = tokenizer["model"], tokenizer.get("decoder") or {}
    kind = model.get("type", "BPE")
    if kind != "BPE" or model.get("byte_fallback") or decoder.get("type") != "ByteLevel":
        raise InputError(
            f"tokenizer.json: {kind} with decoder {decoder.get('type')} is not a byte-level BPE,"
            " the only kind that is exported to GGUF yet"
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise InputError(f"tokenizer.json: {key} = {model[key]!r} does not exist in llama.cpp")


@dataclass(frozen=True)
class _Added:
    text: str
    special: bool


def _tokens(tokenizer: Mapping[str, Any], vocab: int) -> tuple[list[str], list[int]]:
    texts: dict[int, str] = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    added = {
        int(item["id"]): _Added(item["content"], bool(item["special"]))
        for item in tokenizer.get("added_tokens") or ()
    }
    highest = max((*texts, *added))
    if highest >= vocab:
        raise InputError(
            f"tokenizer.json: token id {highest}, but config.json's vocab_size is {vocab}"
        )
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(vocab)]
    types = [NORMAL if index in texts else UNUSED for index in range(vocab)]
    for index, token in added.items():
        control = token.special or _looks_special(token.text)
        tokens[index] = token.text if control else token.text.replace("\u2581", " ")
        types[index] = CONTROL if control else USER_DEFINED
    _check_distinct(tokens)
    greedy = [t["content"] for t in tokenizer.get("added_tokens") or () if _greedy(t)]
    if greedy:
        log.warning(
            "tokenizer.json: llama.cpp takes no spaces with %s, as transformers does: texts with"
            " spaces beside them may get other tokens",
            ", ".join(map(repr, greedy)),
        )
    return tokens, types


def _greedy(token: Mapping[str, Any]) -> bool:
    return any(token.get(key) for key in ("lstrip", "rstrip", "single_word"))


def _check_distinct(tokens: list[str]) -> None:
    first: dict[str, int] = {}
    for index, text in enumerate(tokens):
        if first.setdefault(text, index) != index:
            raise InputError(
                f"tokenizer.json: ids {first[text]} and {index} have the same text {text!r}, on"
                " which llama.cpp ends the whole program; give one of them another text"
            )


def _looks_special(text: str) -> bool:
    return any(text.startswith(a) and text.endswith(b) for a, b in CONTROL_BRACKETS)


def _merges(merges: list[Any]) -> list[str]:
    """Pairs (tokenizers ≥ 0.20) or already "left right"; a space within a part is written Ġ."""
    texts = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    for index, text in enumerate(texts):
        if text.count(" ") != 1:
            left, right = merges[index]
            texts[index] = f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}"
    return texts


def _chat_template(checkpoint: Checkpoint) -> list[MetadataEntry]:
    templates = chat_templates(checkpoint.path, checkpoint.settings)
    named = {_ascii(name): text for name, text in templates.items()}
    default = named.pop(DEFAULT, None)
    entries = [MetadataEntry(f"tokenizer.chat_template.{k}", STRING, v) for k, v in named.items()]
    if named:
        entries.append(MetadataEntry("tokenizer.chat_templates", STRING, sorted(named)))
    if default is not None:
        entries.append(MetadataEntry("tokenizer.chat_template", STRING, default))
    return entries


def _ascii(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def _flags(tokenizer: Mapping[str, Any], special: Sequence[MetadataEntry]) -> list[MetadataEntry]:
    """What llama.cpp adds around a text: written out, so that its defaults never decide.

    It can add its BOS before and its EOS after, nothing else.
    """
    ids = {entry.key: entry.value for entry in special}
    flags = {}
    for role, added in zip(("bos", "eos"), around(tokenizer), strict=True):
        own = ids.get(f"tokenizer.ggml.{role}_token_id")
        if added and added != [own]:
            raise InputError(
                f"tokenizer.json: puts the tokens {added} around a text; llama.cpp can only add"
                f" its {role.upper()}, which is {own}"
            )
        flags[role] = bool(added)
    entries = [MetadataEntry("tokenizer.ggml.add_bos_token", BOOL, flags["bos"])]
    if flags["eos"]:
        entries.append(MetadataEntry("tokenizer.ggml.add_eos_token", BOOL, True))
    return entries


def _space_prefix(settings: Mapping[str, Any]) -> list[MetadataEntry]:
    value = settings.get("add_prefix_space")
    return [] if value is None else [MetadataEntry("tokenizer.ggml.add_space_prefix", BOOL, value)]
