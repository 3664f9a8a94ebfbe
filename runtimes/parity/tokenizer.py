"""Tokenizer equality: a few thousand awkward strings, ids equal to the reference's."""

from __future__ import annotations

import random
from collections.abc import Iterator

from runtimes.parity.suite import Budget, built_in
from runtimes.protocol import Runtime

COUNT = 3000
SEED = 7
PIECES = (
    " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "0", "7", "42", "1999", "3.14", "1,000,000",
    "the", "Paris", "naïve", "Straße", "хлеб", "φ", "海", "日本語", "العربية", "हिन्दी", "🙂",
    "👩‍🚀", "🇳🇴",
    "e\u0301", "\u200b", "\u00a0", "…", "—", "“", "’s", "'ll", "n't", "def f(x):", "    return",
    "{}", "[]", "=>", "!=", "<br/>", "https://example.org/a?b=1", "_", "__init__", "camelCase",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "user", "ASSISTANT", "\\n", "\"", "$x^2$",
)  # fmt: skip


def awkward_strings() -> Iterator[str]:
    """All built-in texts, then seeded mixtures of digits, spaces, scripts, code, specials."""
    for prompt in built_in(Budget.FULL).prompts:
        yield from (message["content"] for message in prompt.messages)
        if prompt.text is not None:
            yield prompt.text
    rng = random.Random(SEED)
    for _ in range(COUNT):
        yield "".join(rng.choices(PIECES, k=rng.randint(1, 8)))


def tokenizer_mismatches(runtime: Runtime, reference: Runtime) -> tuple[int, int, str | None]:
    """Strings compared, strings with other ids, and the first such string."""
    count, wrong, first = 0, 0, None
    for text in awkward_strings():
        count += 1
        if runtime.tokenize(text) != reference.tokenize(text):
            wrong += 1
            first = text if first is None else first
    return count, wrong, first
