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
CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SHORTENED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# Phi-4-mini's, gpt-oss's, Llama 4's.
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALL}+{SHORTENED}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALL}*{SHORTENED}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1}").replace(
    r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+"
)
# What llama.cpp's expressions cannot say, in words: src/llama-vocab.cpp, `llm_tokenizer_bpe`.
BY_CASE = (
    "words at combining marks, and not at capitals and small letters beyond ASCII: texts of other"
    " scripts than ASCII's"
)
WIDE_SPACES = "wide spaces from what follows them: texts with U+3000, as Chinese ones have,"


@dataclass(frozen=True)
class PreType:
    """One pre-tokenizer: `splits` run first, then bytes become characters.

    `gpt2_words` applies GPT-2's expression in that last step. `ignore_merges` takes a whole word
    that is a token before trying merges. `add_bos` is the default where the file does not say.
    `otherwise` says what llama.cpp splits in another way than these steps, if anything.
    """

    splits: tuple[dict[str, Any], ...] = ()
    gpt2_words: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    normalizer: dict[str, Any] | None = None
    otherwise: str = ""


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS = PreType(({"type": "Digits", "individual_digits": True},), gpt2_words=True)
WORDS = PreType(gpt2_words=True)
BY_WORD = PreType((_split(GPT4O),), otherwise=BY_CASE)
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
    "tekken": PreType((_split(TEKKEN),), ignore_merges=True, add_bos=True, otherwise=BY_CASE),
    "gpt-4o": BY_WORD,
    "llama4": BY_WORD,
    "deepseek-coder": PreType(
        (
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split("[一-龥\u0800-一가-\ud7ff]+"),
            {"type": "Digits", "individual_digits": True},
        ),
        otherwise=WIDE_SPACES,
    ),
    "deepseek-v3": PreType(
        (_split(r"\p{N}{1,3}"), _split("[一-龥\u3040-ゟ゠-ヿ]+"), _split(DEEPSEEK3))
    ),
    "minicpm5": PreType(
        (_split(r"\p{N}{1,3}"), _split(LLAMA3.replace("{1,3}", "+"))), ignore_merges=True
    ),
    "seed-coder": PreType((_split(SEED),)),
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
