"""What every tokenizer of a GGUF file has: texts, types, and which are added or special.

Source: llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgeproof.errors import InputError
from export.sources.gguf_metadata import Metadata

# Values of tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Found in a text before anything else is made of it.
SEARCHED = frozenset({UNKNOWN, CONTROL, USER_DEFINED})
# Role in tokenizer_config.json → the word in the metadata key.
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
# In a model's name: llama.cpp then lets tokens that are searched take the spaces after them, but
# for these. Nothing else in a file says so.
TAKING_SPACES = {"phi-3": ("<unk>", "<s>", "<|endoftext|>")}
TAKING_SPACES["phi3"] = TAKING_SPACES["phi-3"]

Json = dict[str, Any]


class Tokens:
    """The tokens of a file.

    Attributes:
        texts: by id.
        types: llama.cpp's types by id.
        special: the text of each special token that the file names, by its role.

    Raises:
        InputError: lists of different lengths, a text twice, or an id beyond them.
    """

    def __init__(self, meta: Metadata) -> None:
        self.meta = meta
        self.texts = meta.texts("tokenizer.ggml.tokens")
        if len(self.ids) != len(self.texts):
            raise InputError(
                f"{meta.path}: tokenizer.ggml.tokens holds a token twice; damaged file"
            )
        self.special = self._special()
        self.types = meta.integers("tokenizer.ggml.token_type") or [NORMAL] * len(self.texts)
        if len(self.types) != len(self.texts):
            raise InputError(f"{meta.path}: tokenizer.ggml.token_type and tokens differ in length")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Text → id."""
        return {text: index for index, text in enumerate(self.texts)}

    @cached_property
    def known(self) -> dict[str, int]:
        """The same without the ids that no token has, for which converters make up a text."""
        return {
            text: index
            for (text, index), kind in zip(self.ids.items(), self.types, strict=True)
            if (text, kind) != (f"[PAD{index}]", UNUSED)
        }

    def added(self) -> list[Json]:
        """The `added_tokens` of tokenizer.json."""
        named = set(self.special.values())
        name = self.meta.text("general.name", "").lower()
        kept = next((kept for part, kept in TAKING_SPACES.items() if part in name), None)
        return [
            {
                "id": index,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": kept is not None and text not in kept,
                "normalized": False,
                "special": kind in {CONTROL, UNKNOWN} or text in named,
            }
            for index, (text, kind) in enumerate(zip(self.texts, self.types, strict=True))
            if kind in SEARCHED or text in named
        ]

    def _special(self) -> dict[str, str]:
        found = {}
        for role, word in SPECIAL.items():
            key = f"tokenizer.ggml.{word}_token_id"
            if key in self.meta:
                index = self.meta.integer(key)
                if not 0 <= index < len(self.texts):
                    raise InputError(
                        f"{self.meta.path}: {key} = {index}, but there are {len(self.texts)} tokens"
                    )
                found[role] = self.texts[index]
        return found


@dataclass(frozen=True)
class Parts:
    """What differs between tokenizers: parts of tokenizer.json, parsed.

    `add_bos` is whether a text gets the begin token where the file does not say.
    """

    normalizer: Json | None
    pre_tokenizer: Json | None
    decoder: Json
    model: Json
    add_bos: bool


# One of `tokenizer.ggml.model`'s kinds. Raises InputError for what it cannot read.
ReadParts = Callable[[Tokens], Parts]


def bpe(vocabulary: Mapping[str, int], merges: Sequence[list[str]], **changes: Any) -> Json:
    """The `model` of tokenizer.json: byte-pair encoding."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocabulary),
        "merges": list(merges),
        **changes,
    }
