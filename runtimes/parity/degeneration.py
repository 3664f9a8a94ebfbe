"""How a generated text reads, in numbers: repetition, length, endings, and the reference's opinion.

A damaged model often still picks likely tokens one by one, but loops or never stops.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.fields import AnyFloat
from runtimes.protocol import Runtime

NGRAM = 4


@dataclass(frozen=True)
class TextQuality:
    """How several replies read."""

    repetition: AnyFloat
    """Share of 4-grams that occurred before in the same reply."""
    tokens: float
    """Mean length."""
    stopped: float
    """Share that ended with a stop token."""
    perplexity: AnyFloat
    """The reference's, of all the replies' tokens."""


class Scorer:
    """Measures replies with the reference model; what several artifacts reply is run once."""

    def __init__(self, reference: Runtime, stop_tokens: Collection[int]) -> None:
        self.stop_tokens = stop_tokens
        self._reference = reference
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray] = {}

    def quality(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
    ) -> TextQuality:
        """Figures of non-empty replies to these prompts."""
        costs = [
            self._likelihood(tuple(prompt), tuple(reply))
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return TextQuality(
            repetition=float(np.mean([repetition(reply) for reply in replies])),
            tokens=float(np.mean([len(reply) for reply in replies])),
            stopped=float(np.mean([reply[-1] in self.stop_tokens for reply in replies])),
            perplexity=float(np.exp(np.concatenate(costs).mean())),
        )

    def _likelihood(self, prompt: tuple[int, ...], reply: tuple[int, ...]) -> np.ndarray:
        """The reference's negative log-likelihood of each token of a reply: float64 [n]."""
        key = prompt, reply
        if key not in self._known:
            read, costs, start = [*prompt, *reply[:-1]], [], 0
            for block in self._reference.logit_blocks(read, len(prompt) - 1):
                costs.append(_costs(block.astype(np.float64), reply[start : start + len(block)]))
                start += len(block)
            self._known[key] = np.concatenate(costs)
        return self._known[key]


def _costs(rows: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """The negative log-likelihood of tokens by logits [n, V]: float64 [n]."""
    peak = rows.max(-1)
    log_total = peak + np.log(np.exp(rows - peak[:, None]).sum(-1))
    return np.asarray(log_total - rows[np.arange(len(rows)), list(tokens)])


def repetition(tokens: Sequence[int]) -> float:
    """Share of 4-grams that occurred before: 0 where all differ, near 1 in a loop."""
    grams = [tuple(tokens[start : start + NGRAM]) for start in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
