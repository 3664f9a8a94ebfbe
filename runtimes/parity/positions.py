"""The positions where an export is furthest from the reference, with their text: for readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.fields import AnyFloat
from runtimes.parity.repeats import repeated
from runtimes.parity.suite import Document

WORST = 10
CONTEXT = 16  # tokens before, and with, the position

Detokenize = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class WorstPosition:
    """One position of a text: what was read last, its KL, and what each side expects next."""

    document: str
    """Its id in the text."""
    position: int
    """From 0."""
    context: str
    """The text up to and with it."""
    kl: AnyFloat
    """Nats."""
    reference_token: str
    """What PyTorch expects next."""
    export_token: str
    """What the export expects next."""


def worst_positions(
    documents: Sequence[Document], metrics: Sequence[PositionMetrics], detokenize: Detokenize
) -> tuple[WorstPosition, ...]:
    """The positions of greatest KL, the worst first; NaN counts as greatest.

    One of a beginning that documents share is the first document's.
    """
    owners = np.repeat(np.arange(len(documents)), [len(part.kl) for part in metrics])
    starts = np.cumsum([0, *(len(part.kl) for part in metrics)])
    kl = np.concatenate([part.kl for part in metrics])
    counts = np.concatenate(
        [
            np.arange(len(part.kl)) >= skipped
            for part, skipped in zip(metrics, repeated(documents), strict=True)
        ]
    )
    order = np.argsort(-np.nan_to_num(kl, nan=np.inf), kind="stable")
    worst = []
    for index in order[counts[order]][:WORST].tolist():
        owner = int(owners[index])
        document, part, place = documents[owner], metrics[owner], index - int(starts[owner])
        worst.append(
            WorstPosition(
                document.id,
                place,
                detokenize(document.ids[max(0, place + 1 - CONTEXT) : place + 1]),
                float(kl[index]),
                detokenize([int(part.best_reference[place])]),
                detokenize([int(part.best_export[place])]),
            )
        )
    return tuple(worst)
