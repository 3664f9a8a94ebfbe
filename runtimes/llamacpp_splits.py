"""Which texts llama.cpp's pre-tokenizers split in another way than the tokenizers they stand for.

Its expressions cannot name all categories of characters (src/llama-vocab.cpp, `llm_tokenizer_bpe`):
for capitals it has letters that are not a to z, for small ones those that are not A to Z, and
combining marks are none of both. Here both expressions split a text; where the pieces are alike,
other tokens are a fault.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache, partial

from tokenizers import Regex
from tokenizers.pre_tokenizers import PreTokenizer, Split

CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
THEIR_CAPITALS, THEIR_SMALL = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
SHORTENED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# Spaces within the range of characters that DeepSeek Coder splits off; llama.cpp's is without them.
WIDE_SPACES = re.compile("[\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def splits_otherwise(pre: str, text: str) -> bool:
    """Whether what `tokenizer.ggml.pre` stands for splits the text, or composes it, otherwise."""
    return pre in OTHERWISE and OTHERWISE[pre](text)


def _not_composed(text: str) -> bool:
    """Qwen's tokenizers compose characters first (NFC); llama.cpp never does."""
    return not unicodedata.is_normalized("NFC", text)


def _has_wide_spaces(text: str) -> bool:
    return WIDE_SPACES.search(text) is not None


def _by_case(end: str, digits: str, text: str) -> bool:
    """`end` of a word and `digits` are the expression's parts that are the same in both."""
    own, theirs = (
        _split(CAPITALS, SMALL, end, digits),
        _split(THEIR_CAPITALS, THEIR_SMALL, end, digits),
    )
    return bool(own.pre_tokenize_str(text) != theirs.pre_tokenize_str(text))


@cache
def _split(capitals: str, small: str, end: str, digits: str) -> PreTokenizer:
    before = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{before}{capitals}*{small}+{end}|{before}{capitals}+{small}*{end}"
    rest = rf"{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return Split(Regex(f"{words}|{rest}"), "isolated")


GPT4O = partial(_by_case, SHORTENED, r"\p{N}{1,3}")
OTHERWISE: Mapping[str, Callable[[str], bool]] = {
    "qwen2": _not_composed,
    "gpt-4o": GPT4O,
    "llama4": GPT4O,
    "tekken": partial(_by_case, "", r"\p{N}"),
    "deepseek-coder": _has_wide_spaces,
}
