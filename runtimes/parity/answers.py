"""An artifact's replies against the reference's: how far they agree, and how they read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.parity.decoding import Decoded, decode, decode_all, first_difference, greedy
from runtimes.parity.degeneration import Scorer, TextQuality
from runtimes.parity.divergence import compare
from runtimes.parity.fields import AnyFloat
from runtimes.parity.intervals import Estimate
from runtimes.parity.prefill import logits_from
from runtimes.parity.replies import REPLIES_SHOWN, Detokenize, ReplyPair, reply_texts
from runtimes.parity.statistics import share_of_totals
from runtimes.parity.suite import Document
from runtimes.protocol import Runtime

# Greedy replies whose steps are compared with one uncached pass: the first, decoded alone, and
# some that were decoded together.
CACHE_CHECKS = 6


@dataclass(frozen=True)
class SampledResult:
    """Replies sampled at temperature 0.2, top-p 0.9 with random numbers that the reference shares.

    Nothing is judged by them.
    """

    prompts: int
    identical: int
    """Replies equal to the reference's."""
    agreed_tokens: float
    """Mean number of tokens before the first difference."""
    reply_tokens: float
    """Mean length of the reference's replies."""
    agreement: Estimate
    """Share of the reference's tokens before the first difference, over all replies."""
    texts: TextQuality
    """How the export's replies read."""
    reference_texts: TextQuality
    """How the reference's read."""
    replies: tuple[tuple[int, ...], ...]
    """Token ids."""
    reference_replies: tuple[tuple[int, ...], ...]
    """Token ids."""
    shown: tuple[ReplyPair, ...]
    """Some of the replies as text."""


@dataclass(frozen=True)
class GreedyReplies:
    """Greedy replies of a runtime, not judged yet.

    `cache_kl` and `tokens_per_second` are as in `GreedyResult`.
    """

    replies: tuple[tuple[int, ...], ...]
    cache_kl: float
    tokens_per_second: float


@dataclass(frozen=True)
class GreedyResult:
    """Greedy replies through the runtime's own KV cache, against the reference's."""

    prompts: int
    identical: int
    """Replies equal to the reference's."""
    agreed_tokens: float
    """Mean number of tokens before the first difference."""
    reply_tokens: float
    """Mean length of the reference's replies."""
    agreement: Estimate
    """Share of the reference's tokens before the first difference, over all replies."""
    cache_kl: AnyFloat
    """Mean KL between one uncached pass and decoding the first six in steps, nats."""
    tokens_per_second: float
    """Of decoding the first step by step, alone."""
    texts: TextQuality
    """How the export's replies read."""
    reference_texts: TextQuality
    """How the reference's read."""
    replies: tuple[ReplyPair, ...]
    """Some of the replies as text."""


def decode_greedily(
    runtime: Runtime,
    documents: Sequence[Document],
    count: int,
    stop_tokens: Collection[int],
    *,
    together: bool,
) -> GreedyReplies:
    """Answer one chat or more by at most `count` most likely tokens each.

    The first is decoded alone, which is what its speed is measured on; the others `together` where
    the runtime can.
    """
    first, *others = [greedy(document.prompt, count) for document in documents]
    alone = decode(runtime, first, stop_tokens)
    speed = (len(alone.reply) - 1) / alone.seconds if alone.seconds else 0.0
    decoded = [alone]
    for found in decode_all(runtime, others, stop_tokens, together=together):
        decoded.append(found if len(decoded) < CACHE_CHECKS else Decoded(found.reply, []))
    cache_kl = [
        _cache_kl(runtime, document, item)
        for document, item in zip(documents, decoded[:CACHE_CHECKS], strict=False)
    ]
    return GreedyReplies(tuple(item.reply for item in decoded), float(np.mean(cache_kl)), speed)


def greedy_result(
    documents: Sequence[Document], decoded: GreedyReplies, scorer: Scorer, detokenize: Detokenize
) -> GreedyResult:
    """Compare greedy replies with the reference's."""
    expected = [document.reply for document in documents]
    shared, shown = _compared(documents, decoded.replies, expected, scorer, detokenize)
    return GreedyResult(
        **shared,
        cache_kl=decoded.cache_kl,
        tokens_per_second=decoded.tokens_per_second,
        replies=shown,
    )


def sampled_result(
    documents: Sequence[Document],
    replies: Sequence[tuple[int, ...]],
    expected: Sequence[tuple[int, ...]],
    scorer: Scorer,
    detokenize: Detokenize,
) -> SampledResult:
    """Compare sampled replies to each chat document's prompt with `expected`."""
    shared, shown = _compared(documents, replies, expected, scorer, detokenize)
    return SampledResult(
        **shared, replies=tuple(replies), reference_replies=tuple(expected), shown=shown
    )


def _compared(
    documents: Sequence[Document],
    replies: Sequence[tuple[int, ...]],
    expected: Sequence[tuple[int, ...]],
    scorer: Scorer,
    detokenize: Detokenize,
) -> tuple[dict[str, Any], tuple[ReplyPair, ...]]:
    """What both results have by the same names, and the replies that are shown."""
    pairs = list(zip(replies, expected, strict=True))
    agreed = [first_difference(own, theirs) for own, theirs in pairs]
    lengths = [len(theirs) for theirs in expected]
    prompts = [document.prompt for document in documents]
    shown = tuple(
        reply_texts(document, theirs, own, scorer.stop_tokens, detokenize)
        for document, (own, theirs) in zip(documents[:REPLIES_SHOWN], pairs, strict=False)
    )
    shared = {
        "prompts": len(prompts),
        "identical": sum(own == theirs for own, theirs in pairs),
        "agreed_tokens": float(np.mean(agreed)),
        "reply_tokens": float(np.mean(lengths)),
        "agreement": share_of_totals(agreed, lengths),
        "texts": scorer.quality(prompts, replies),
        "reference_texts": scorer.quality(prompts, expected),
    }
    return shared, shown


def _cache_kl(runtime: Runtime, document: Document, decoded: Decoded) -> float:
    """Mean KL of a reply's kept steps against one uncached pass, nats."""
    reply = decoded.reply[: len(decoded.rows)]
    uncached = logits_from(runtime, [*document.prompt, *reply[:-1]], len(document.prompt) - 1)
    return float(compare(uncached, np.stack(decoded.rows), reply).kl.mean())
