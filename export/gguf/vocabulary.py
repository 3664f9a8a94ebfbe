"""`tokenizer.*` metadata: a tokenizer.json as one of the vocabularies that llama.cpp has.

Keys as in convert_hf_to_gguf.py (`_set_vocab_gpt2`, `_set_vocab_sentencepiece`, T5's `set_vocab`)
and gguf-py's SpecialVocab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.chat_template import DEFAULT, chat_templates, template_source
from edgeproof.checkpoints.tokenizer import TOKENIZER, around
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.gguf.byte_level import BYTE_LEVEL
from export.gguf.container import BOOL, FLOAT32, INT32, STRING, UINT32, MetadataEntry
from export.gguf.sentencepiece import SENTENCEPIECE
from export.gguf.special_tokens import special_entries
from export.gguf.tokens import Vocabulary, VocabularyKind
from export.gguf.unigram import UNIGRAM

UNKNOWN_ID = "tokenizer.ggml.unknown_token_id"
KINDS: Sequence[VocabularyKind] = (BYTE_LEVEL, SENTENCEPIECE, UNIGRAM)


def vocabulary_entries(checkpoint: Checkpoint, *, space_prefix: bool) -> list[MetadataEntry]:
    """All `tokenizer.*` entries; `space_prefix` to repeat what the settings say on that.

    Raises:
        InputError: a tokenizer that llama.cpp has not or would split differently, or token ids
            beyond the model's vocabulary.
    """
    try:
        tokenizer, settings = checkpoint.tokenizer, checkpoint.settings
        read = _kind(tokenizer).read(tokenizer, checkpoint.config.vocab)
        special = _with_unknown(special_entries(checkpoint, read.tokens), read)
        entries = [
            *_list_entries(read),
            *special,
            *_flags(tokenizer, special, read, checkpoint.path / TOKENIZER),
            *_chat_template(checkpoint),
            *_space_prefix(read, settings if space_prefix else {}),
        ]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{checkpoint.path / 'tokenizer.json'}: not understood ({error!r}); save the tokenizer"
            " again with transformers' save_pretrained"
        ) from None
    return entries


def _kind(tokenizer: Mapping[str, Any]) -> VocabularyKind:
    for kind in KINDS:
        if kind.claims(tokenizer):
            return kind
    model, decoder = tokenizer["model"], tokenizer.get("decoder") or {}
    known = " or ".join(kind.title for kind in KINDS)
    raise InputError(
        f"tokenizer.json: {model.get('type', 'BPE')} with decoder {decoder.get('type')} is not"
        f" {known}, the kinds that are exported to GGUF"
    )


def _list_entries(read: Vocabulary) -> list[MetadataEntry]:
    """The lists that it has, in the converter's order."""
    lists = (
        ("model", STRING, read.model),
        ("pre", STRING, read.pre),
        ("tokens", STRING, read.tokens),
        ("scores", FLOAT32, read.scores),
        ("token_type", INT32, read.types),
        ("merges", STRING, read.merges),
    )
    return [
        MetadataEntry(f"tokenizer.ggml.{key}", kind, value)
        for key, kind, value in lists
        if value is not None
    ]


def _chat_template(checkpoint: Checkpoint) -> list[MetadataEntry]:
    templates = chat_templates(checkpoint.path, checkpoint.settings)
    named = {_ascii(name): text for name, text in templates.items()}
    if len(named) < len(templates):
        made = [*map(_ascii, templates)]
        twin = next(name for name in templates if made.count(_ascii(name)) > 1)
        source = template_source(checkpoint.path, twin)
        raise InputError(
            f"{source}: of the chat templates {', '.join(templates)} two"
            " would have one name in GGUF, which keeps ASCII letters and digits; rename one"
        )
    default = named.pop(DEFAULT, None)
    entries = [MetadataEntry(f"tokenizer.chat_template.{k}", STRING, v) for k, v in named.items()]
    if named:
        entries.append(MetadataEntry("tokenizer.chat_templates", STRING, sorted(named)))
    if default is not None:
        entries.append(MetadataEntry("tokenizer.chat_template", STRING, default))
    return entries


def _ascii(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def _with_unknown(special: list[MetadataEntry], read: Vocabulary) -> list[MetadataEntry]:
    """The entries, where the algorithm's own unknown token is what its key says."""
    if read.unknown is None:
        return special
    others = [entry for entry in special if entry.key != UNKNOWN_ID]
    return [*others, MetadataEntry(UNKNOWN_ID, UINT32, read.unknown)]


def _flags(
    tokenizer: Mapping[str, Any], special: Sequence[MetadataEntry], read: Vocabulary, source: Path
) -> list[MetadataEntry]:
    """What llama.cpp adds around a text: written out, so that its defaults never decide.

    It can add its BOS before and its EOS after, nothing else.
    """
    ids = {entry.key: entry.value for entry in special}
    flags = {}
    for role, added in zip(("bos", "eos"), around(tokenizer, source), strict=True):
        own = ids.get(f"tokenizer.ggml.{role}_token_id")
        if added and added != [own]:
            raise InputError(
                f"{source}: puts the tokens {added} around a text; llama.cpp can only add"
                f" its {role.upper()}, which is {own}"
            )
        flags[role] = bool(added)
    entries = [MetadataEntry("tokenizer.ggml.add_bos_token", BOOL, flags["bos"])]
    if flags["eos"] != read.ends_texts or flags["eos"]:
        entries.append(MetadataEntry("tokenizer.ggml.add_eos_token", BOOL, flags["eos"]))
    return entries


def _space_prefix(read: Vocabulary, settings: Mapping[str, Any]) -> list[MetadataEntry]:
    """Of a vocabulary that may have one, what is true of it; else what the settings say."""
    if read.merges_spaces is not None:
        keys = {
            "add_space_prefix": read.space_prefix,
            "remove_extra_whitespaces": read.merges_spaces,
        }
        return [MetadataEntry(f"tokenizer.ggml.{key}", BOOL, keys[key]) for key in keys]
    value = settings.get("add_prefix_space")
    if read.space_prefix is not None:
        value = read.space_prefix if value is not None or not read.space_prefix else None
    return [] if value is None else [MetadataEntry("tokenizer.ggml.add_space_prefix", BOOL, value)]
