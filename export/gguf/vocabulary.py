"""`tokenizer.*` metadata: a byte-level BPE tokenizer.json as llama.cpp's gpt2 vocabulary.

Keys and token types as in convert_hf_to_gguf.py (_set_vocab_gpt2) and gguf-py's SpecialVocab.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.checkpoints.chat_template import chat_template
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.gguf.container import BOOL, INT32, STRING, UINT32, MetadataEntry
from export.gguf.pretokenizer import pretokenizer_name

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's llama_token_type
# Role in tokenizer_config.json and config.json → llama.cpp's key.
SPECIAL_IDS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # spelled so in the format
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}
# Brackets of tokens that are control tokens even where the tokenizer does not mark them.
CONTROL_BRACKETS = (("<|", "|>"), ("<｜", "｜>"))


def vocabulary_entries(checkpoint: Checkpoint, *, space_prefix: bool) -> list[MetadataEntry]:
    """All `tokenizer.*` entries; `space_prefix` to repeat what the settings say on that.

    Raises:
        InputError: not a byte-level BPE, one that llama.cpp would split differently, or token ids
            beyond the model's vocabulary.
    """
    tokenizer = checkpoint.json_file("tokenizer.json")
    settings = checkpoint.json_file("tokenizer_config.json")
    try:
        _check_byte_level_bpe(tokenizer)
        tokens, types = _tokens(tokenizer, checkpoint.config.vocab)
        entries = [
            MetadataEntry("tokenizer.ggml.model", STRING, "gpt2"),
            MetadataEntry("tokenizer.ggml.pre", STRING, pretokenizer_name(tokenizer)),
            MetadataEntry("tokenizer.ggml.tokens", STRING, tokens),
            MetadataEntry("tokenizer.ggml.token_type", INT32, types),
            MetadataEntry("tokenizer.ggml.merges", STRING, _merges(tokenizer["model"]["merges"])),
            *_special_ids(checkpoint, tokenizer, settings),
            *_flags(tokenizer, settings),
            *_chat_template(checkpoint, settings),
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
    return tokens, types


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


def _special_ids(
    checkpoint: Checkpoint, tokenizer: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[MetadataEntry]:
    added = {item["content"]: item["id"] for item in tokenizer.get("added_tokens") or ()}
    entries = []
    for role, key in SPECIAL_IDS.items():
        index = added.get(_content(settings.get(f"{role}_token")))
        if index is None:
            index = checkpoint.raw_config.get(f"{role}_token_id")
        if isinstance(index, int) and 0 <= index < checkpoint.config.vocab:
            entries.append(MetadataEntry(f"tokenizer.ggml.{key}", UINT32, index))
    return entries


def _content(token: Any) -> str | None:
    """A token of tokenizer_config.json is a text or an AddedToken's fields."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _chat_template(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[MetadataEntry]:
    template = chat_template(checkpoint.path, settings)
    if template is None:
        return []
    named = {"default": template} if isinstance(template, str) else _named_templates(template)
    default = named.pop("default", None)
    entries = [MetadataEntry(f"tokenizer.chat_template.{k}", STRING, v) for k, v in named.items()]
    if named:
        entries.append(MetadataEntry("tokenizer.chat_templates", STRING, sorted(named)))
    if default is not None:
        entries.append(MetadataEntry("tokenizer.chat_template", STRING, default))
    return entries


def _named_templates(templates: list[Mapping[str, str]]) -> dict[str, str]:
    return {
        "".join(c if c.isascii() and c.isalnum() else "_" for c in item["name"]): item["template"]
        for item in templates
    }


def _flags(tokenizer: Mapping[str, Any], settings: Mapping[str, Any]) -> list[MetadataEntry]:
    """What llama.cpp adds around a text: written out, so that its defaults never decide."""
    first, last = _template_ends(tokenizer.get("post_processor"))
    bos, eos = settings.get("add_bos_token"), settings.get("add_eos_token")
    flags = {
        "add_bos_token": bos if isinstance(bos, bool) else first,
        "add_eos_token": (eos if isinstance(eos, bool) else last) or None,
    }
    return [
        MetadataEntry(f"tokenizer.ggml.{key}", BOOL, value)
        for key, value in flags.items()
        if value is not None
    ]


def _space_prefix(settings: Mapping[str, Any]) -> list[MetadataEntry]:
    value = settings.get("add_prefix_space")
    return [] if value is None else [MetadataEntry("tokenizer.ggml.add_space_prefix", BOOL, value)]


def _template_ends(post_processor: Mapping[str, Any] | None) -> tuple[bool, bool]:
    """Whether a single text gets a special token before and after it."""
    if post_processor is None:
        return False, False
    for processor in post_processor.get("processors", [post_processor]):
        if processor["type"] == "TemplateProcessing":
            single = processor["single"]
            return "SpecialToken" in single[0], "SpecialToken" in single[-1]
    return False, False
