"""Pairs of a SentencePiece BPE's pieces whose joint text is a piece: what llama.cpp would join.

A piece of n characters is cut in n - 1 places into texts of n together, so that a few long ones can
take hours. What training makes is far below the limits here: SentencePiece's own limit is 16
characters, and the 513,511 pairs of a published Gemma tokenizer take about 90 MB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from edgeproof.errors import InputError

MOST_CUTS = 2_000_000_000  # the sum of the squares of the pieces' lengths in characters
MOST_PAIRS = 256_000_000  # bytes in memory
OF_A_PAIR = 170  # bytes of a list and two texts, beside their characters


def pairs(texts: Iterable[str], pieces: Collection[str], source: str) -> Iterator[list[str]]:
    """For each of `texts` all pairs of `pieces` that it is made of, the longest left part first.

    Raises:
        InputError: that would take too long or too much memory; it names the `source`.
    """
    ordered = list(texts)
    longest = max(map(len, ordered), default=0)
    refusal = InputError(
        f"{source}: its pieces, of up to {longest:,} characters, can be joined in more ways than"
        " those of any trained tokenizer: a damaged file, or one made to take long"
    )
    if sum(len(text) ** 2 for text in ordered) > MOST_CUTS:
        raise refusal
    held = 0
    for text in ordered:
        for cut in range(len(text) - 1, 0, -1):
            if text[:cut] in pieces and text[cut:] in pieces:
                held += OF_A_PAIR + len(text)
                if held > MOST_PAIRS:
                    raise refusal
                yield [text[:cut], text[cut:]]
