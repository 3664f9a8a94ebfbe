"""Tokenizer equality: thousands of awkward strings, ids equal to the reference's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtimes.parity.suite import Budget, built_in
from runtimes.protocol import AddedToken, OwnTokenizerRuntime, Runtime, WrappingRuntime

COUNT = 5000
SEED = 7
SHOWN = 200  # characters of a string in a reason
PLAIN = "a"
PIECES = (
    " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "0", "7", "42", "1999", "3.14", "1,000,000",
    "the", "Paris", "naïve", "Straße", "хлеб", "φ", "海", "日本語", "العربية", "हिन्दी", "🙂",
    "👩‍🚀", "🇳🇴",
    "e\u0301", "\u200b", "\u00a0", "…", "—", "“", "’s", "'ll", "n't", "def f(x):", "    return",
    "{}", "[]", "=>", "!=", "<br/>", "https://example.org/a?b=1", "_", "__init__", "camelCase",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "user", "ASSISTANT", "\\n", "\"", "$x^2$",
)  # fmt: skip


# Inclusive ranges that every Unicode version in use has assigned in full: ASCII, Latin, combining
# marks, Cyrillic, Hebrew, Arabic, Devanagari, Thai, punctuation, arrows, mathematics, Kana, Han,
# Hangul, mathematical digits, emoji.
SCRIPTS = (
    (0x20, 0x7E), (0xA1, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x904, 0x939), (0xE01, 0xE3A), (0x2010, 0x2027), (0x2190, 0x21FF), (0x2200, 0x22FF),
    (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1D7CE, 0x1D7FF),
    (0x1F600, 0x1F64F),
)  # fmt: skip


def awkward_strings() -> Iterator[str]:
    """All built-in texts, then seeded random strings.

    Half are mixtures of digits, spaces, words, code and special tokens, half characters of scripts.
    """
    for prompt in built_in(Budget.FULL).prompts:
        yield from (message["content"] for message in prompt.messages)
        if prompt.text is not None:
            yield prompt.text
    rng = random.Random(SEED)
    for _ in range(COUNT):
        count = rng.randint(1, 8)
        yield "".join(rng.choices(PIECES, k=count) if rng.random() < 0.5 else _letters(rng, count))


def _letters(rng: random.Random, count: int) -> list[str]:
    return [chr(rng.randint(*script)) for script in rng.choices(SCRIPTS, k=count)]


@dataclass(frozen=True)
class Mismatches:
    """Strings that both tokenizers read, those with other ids, and the first such string.

    `apart` are strings with other ids that the runtime's library is known to split otherwise,
    whatever the file says: they say nothing of the export.
    """

    strings: int
    wrong: int
    first: str | None
    apart: int

    @property
    def text(self) -> str:
        """In words, where there are any; of a long string its beginning."""
        first = self.first or ""
        more = f" … ({len(first):,} characters)" if len(first) > SHOWN else ""
        shown = f"{first[:SHOWN]!r}{more}"
        return f"{self.wrong} of {self.strings} strings tokenize differently, first {shown}"


def tokenizer_mismatches(
    runtime: Runtime, reference: Runtime, added: Sequence[AddedToken]
) -> Mismatches:
    """Compare the ids of all awkward strings, and of those with the checkpoint's added tokens."""
    count, wrong, apart, first = 0, 0, 0, None
    for text in (*awkward_strings(), *strings_of(added)):
        same = runtime.tokenize(text) == reference.tokenize(text)
        if not same and isinstance(runtime, OwnTokenizerRuntime) and runtime.splits_otherwise(text):
            apart += 1
            continue
        count += 1
        if not same:
            wrong += 1
            first = text if first is None else first
    return Mismatches(count, wrong, first, apart)


def strings_of(added: Sequence[AddedToken]) -> Iterator[str]:
    """Each added token alone; between spaces too, where it takes none of them with it.

    Which tokens do is in no file of llama.cpp, and the exporter says so.
    """
    for token in added:
        yield token.text
        if not token.greedy:
            yield f"a {token.text} b"


def wrapping_fault(runtime: Runtime, reference: WrappingRuntime) -> str | None:
    """In words, where the runtime puts other tokens around a text by itself than the checkpoint."""
    if not isinstance(runtime, WrappingRuntime):
        return None
    ours, theirs = runtime.tokenize_whole(PLAIN), reference.tokenize_whole(PLAIN)
    if ours == theirs:
        return None
    return f"{PLAIN!r} becomes {ours} with what is put around it, {theirs} in the original"
