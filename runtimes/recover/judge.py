"""How far recovered weights are from the original's, in float32, on text nothing was fitted to.

Metrics, intervals and gates are the parity run's, at every position after the chat template's
beginning, which all chats share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from edgeproof.artifact import Precision
from edgeproof.verdicts import Verdict
from runtimes.calibrate.decoder import Decoder
from runtimes.parity.divergence import compare, concatenate
from runtimes.parity.gates import GATES
from runtimes.parity.intervals import Estimate
from runtimes.parity.statistics import summarise
from runtimes.parity.verdict import judge
from runtimes.recover.text import Chunk

LOGIT_ROWS = 64
LOW_BIT = GATES[Precision.LOW_BIT]


@dataclass(frozen=True)
class Reference:
    """The original's hidden states of held-out chunks, [T, hidden] each, and its head."""

    chunks: tuple[Chunk, ...]
    hidden: tuple[torch.Tensor, ...]
    head: torch.Tensor


@torch.inference_mode()
def reference(decoder: Decoder, chunks: Sequence[Chunk]) -> Reference:
    """Run the original over held-out text."""
    hidden = tuple(_hidden(decoder, chunk) for chunk in chunks)
    return Reference(tuple(chunks), hidden, decoder.head.clone())


@torch.inference_mode()
def judged(decoder: Decoder, wanted: Reference, advance: Callable[[], None]) -> dict[str, Estimate]:
    """Compare the weights that the decoder has now: every metric of the parity run, by name."""
    parts = []
    for chunk, hidden in zip(wanted.chunks, wanted.hidden, strict=True):
        own = _hidden(decoder, chunk)
        rows = [
            compare(
                (hidden[start : start + LOGIT_ROWS] @ wanted.head.T).numpy(),
                (own[start : start + LOGIT_ROWS] @ decoder.head.T).numpy(),
                chunk.ids[start : start + LOGIT_ROWS + 1],
            )
            for start in range(chunk.prefix, len(hidden), LOGIT_ROWS)
        ]
        parts.append(concatenate(rows))
        advance()
    return summarise(parts)


def passes(figures: Mapping[str, Estimate]) -> bool:
    """Whether these weights alone meet the gates of a low-bit export."""
    return judge(figures, figures, LOW_BIT, ()).verdict is Verdict.PASS


def _hidden(decoder: Decoder, chunk: Chunk) -> torch.Tensor:
    return decoder.hidden(decoder.embed(torch.tensor([chunk.ids])))[0]
