"""How far recovered weights are from the original's, in float32, on text nothing was fitted to.

The numbers are those of the parity run, by its own arithmetic, at every position after the chat
template's beginning, which all chats share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgeproof.artifact import Precision
from runtimes.calibrate.decoder import Decoder
from runtimes.parity.divergence import PositionMetrics, compare, concatenate
from runtimes.parity.gates import GATES, Gate
from runtimes.recover.text import Chunk

LOGIT_ROWS = 64
RESAMPLES = 1000
LOW_BIT = GATES[Precision.LOW_BIT]

Figures = dict[str, float]


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
def judged(
    decoder: Decoder, wanted: Reference, advance: Callable[[], None]
) -> dict[str, tuple[float, float, float]]:
    """Compare the weights that the decoder has now: by metric its value and 95 % interval.

    `mean_kl`, `top1`, `clear_top1` and `acceptance`; intervals resample chunks.
    """
    parts = []
    for chunk, hidden in zip(wanted.chunks, wanted.hidden, strict=True):
        own = _hidden(decoder, chunk)
        rows = [
            compare(
                (hidden[start : start + LOGIT_ROWS] @ wanted.head.T).numpy(),
                (own[start : start + LOGIT_ROWS] @ decoder.head.T).numpy(),
                [0] * len(hidden[start : start + LOGIT_ROWS]),
            )
            for start in range(chunk.prefix, len(hidden), LOGIT_ROWS)
        ]
        parts.append(concatenate(rows))
        advance()
    return {name: _interval(parts, of) for name, of in MEASURED.items()}


# Metric → values and weights of positions.
MEASURED: Mapping[str, Callable[[PositionMetrics], tuple[np.ndarray, np.ndarray]]] = {
    "mean_kl": lambda m: (m.kl, np.ones(len(m.kl))),
    "top1": lambda m: (m.top1, np.ones(len(m.kl))),
    "clear_top1": lambda m: (m.top1, m.clear.astype(float)),
    "acceptance": lambda m: (m.acceptance, np.ones(len(m.kl))),
}


def passes(gate: Gate, figures: Mapping[str, tuple[float, float, float]]) -> bool:
    """Whether the whole interval is on the good side of a gate."""
    _, low, high = figures[gate.metric]
    return low >= gate.limit if gate.at_least else high <= gate.limit


def _hidden(decoder: Decoder, chunk: Chunk) -> torch.Tensor:
    return decoder.hidden(decoder.embed(torch.tensor([chunk.ids])))[0]


def _interval(
    parts: Sequence[PositionMetrics],
    of: Callable[[PositionMetrics], tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float, float]:
    pairs = [of(part) for part in parts]
    sums = np.array([[float(values @ weights), weights.sum()] for values, weights in pairs])
    again = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    resampled = sums[again].sum(1)
    means = resampled[:, 0] / np.maximum(resampled[:, 1], 1)
    low, high = np.quantile(means, (0.025, 0.975))
    total = sums.sum(0)
    return float(total[0] / max(total[1], 1)), float(low), float(high)
