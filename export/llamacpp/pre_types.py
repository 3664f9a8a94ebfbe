r"""How a GGUF's `tokenizer.ggml.pre` splits text before byte-pair encoding.

Each entry is what the models that llama.cpp detects under this name have in their own
tokenizer.json; llama.cpp's equivalent regular expressions are in its src/llama-vocab.cpp. A name
that is not here is refused: a wrong split changes the ids of ordinary text silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError

# GPT-2's own expression; the tokenizers library builds it into ByteLevel(use_regex=True).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreType:
    """One pre-tokenizer: `splits` run first, then bytes become characters.

    `gpt2_words` applies GPT-2's expression in that last step. `ignore_merges` takes a whole word
    that is a token before trying merges. `add_bos` is the default where the file does not say.
    """

    splits: tuple[dict[str, Any], ...] = ()
    gpt2_words: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    normalizer: dict[str, Any] | None = None


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS = PreType(({"type": "Digits", "individual_digits": True},), gpt2_words=True)
WORDS = PreType(gpt2_words=True)
LLAMA_BPE = PreType((_split(LLAMA3),), ignore_merges=True, add_bos=True)

PRE_TYPES: dict[str, PreType] = {
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "refact": DIGITS,
    "gpt-2": WORDS,
    "phi-2": WORDS,
    "llama-bpe": LLAMA_BPE,
    "llama3": LLAMA_BPE,
    "llama-v3": LLAMA_BPE,
    # OLMo 2's and SmolLM3's own files have these: Llama 3's words, and always its merges.
    "dbrx": PreType((_split(LLAMA3),)),
    "smaug-bpe": PreType((_split(LLAMA3),)),
    "qwen2": PreType((_split(QWEN2),), normalizer={"type": "NFC"}),
    "tekken": PreType((_split(TEKKEN),), ignore_merges=True, add_bos=True),
    "default": PreType(
        (
            _split(r"[\p{P}\$\+<=>\^~\|]+"),
            _split(GPT2),
            _split(r"\p{N}+"),
            _split("[0-9][0-9][0-9]"),
        )
    ),
}


def pre_type(name: str, where: str) -> PreType:
    """The pre-tokenizer of that name.

    Raises:
        InputError: an unknown name; the message begins with `where`.
    """
    if name not in PRE_TYPES:
        known = ", ".join(PRE_TYPES)
        raise InputError(f"{where}: tokenizer.ggml.pre {name!r} is unknown; supported: {known}")
    return PRE_TYPES[name]
