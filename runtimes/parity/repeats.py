"""A beginning that documents share is one sample, however many of them begin with it.

Most chats have the same system prompt. What a model makes of it is the same in each of them, so
its positions count in the first document that has them, and in no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.suite import Document


def repeated(documents: Sequence[Document]) -> list[int]:
    """How many tokens each document shares with the beginning of one before it."""
    # A prefix is known by a number, and found by that of the prefix before and its last token.
    known: dict[tuple[int, int], int] = {}
    counts = []
    for document in documents:
        prefix, count = 0, 0
        for token in document.ids:
            step = prefix, token
            count += step in known
            prefix = known.setdefault(step, len(known) + 1)
        counts.append(count)
    return counts


def positions(documents: Sequence[Document]) -> int:
    """Number of positions that count."""
    return sum(len(document.ids) for document in documents) - sum(repeated(documents))


def reached(documents: Sequence[Document]) -> np.ndarray:
    """Number of positions that count up to each document's end: int64 [documents]."""
    lengths = [len(document.ids) for document in documents]
    return np.cumsum(np.subtract(lengths, repeated(documents)))


def counted_once(
    documents: Sequence[Document], metrics: Sequence[PositionMetrics]
) -> list[PositionMetrics]:
    """Each document's metrics without the positions of a beginning that one before it has.

    A document that is wholly the beginning of another is left with none.
    """
    return [
        part.taken(np.arange(skipped, len(part.kl)))
        for part, skipped in zip(metrics, repeated(documents), strict=True)
    ]
