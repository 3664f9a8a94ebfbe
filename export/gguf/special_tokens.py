"""The ids of special tokens in a GGUF file: what begins a text, what ends a reply.

llama.cpp stops at its EOS, EOT and EOM, and at tokens that it knows by their texts
(`llama-vocab.cpp`, `special_eog_ids`). A checkpoint's further ends, which it would not find so, go
into the keys of EOT and EOM.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgeproof.checkpoints.settings import NAMED
from edgeproof.checkpoints.special_tokens import listed
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.checkpoint.chat_template import further_end
from export.gguf.container import UINT32, MetadataEntry

# transformers' name of a role → llama.cpp's key.
KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # spelled so in the format
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}
FURTHER = ("eot_token_id", "eom_token_id")
# Texts of the tokens at which llama.cpp stops by itself.
ENDS_BY_TEXT = frozenset(
    {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
        "<EOT>", "_<EOT>", "<|end_of_text|>", "<end_of_utterance>",
    }
)  # fmt: skip

log = logging.getLogger(__name__)


def special_entries(checkpoint: Checkpoint, tokens: Sequence[str]) -> list[MetadataEntry]:
    """The entries, with a note on what they cannot say; `tokens` are the vocabulary's texts.

    Raises:
        InputError: nothing says what ends a text: llama.cpp would take a letter for that.
    """
    said, vocab = checkpoint.said, checkpoint.config.vocab
    ids = {role: _id(checkpoint, role) for role in NAMED}
    if ids["eos"] is None:
        raise InputError(
            f"{checkpoint.path}: no end-of-text token, and llama.cpp would stop at token 11;"
            " set eos_token_id in generation_config.json"
        )
    known = {*said.stops(vocab), *(index for index in ids.values() if index is not None)}
    end = further_end(checkpoint, known)
    stops = said.stops(vocab) if end is None else (*said.stops(vocab), end)
    unknown = [i for i in stops if i != ids["eos"] and tokens[i] not in ENDS_BY_TEXT]
    if len(unknown) > len(FURTHER):
        left = ", ".join(repr(tokens[index]) for index in unknown[len(FURTHER) :])
        log.warning("%s: llama.cpp has no key for these further ends: %s", checkpoint.path, left)
    found = {KEYS[role]: index for role, index in ids.items() if index is not None}
    found |= dict(zip(FURTHER, unknown, strict=False))
    return [MetadataEntry(f"tokenizer.ggml.{key}", UINT32, index) for key, index in found.items()]


def _id(checkpoint: Checkpoint, role: str) -> int | None:
    """The tokenizer's own, as in llama.cpp's converter, else what the model's files say first."""
    said, vocab = checkpoint.said, checkpoint.config.vocab
    named = said.named(role)
    ids = (*(() if named is None else (named,)), *listed(said.role_id(role)))
    return next((index for index in ids if 0 <= index < vocab), None)
