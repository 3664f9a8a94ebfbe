"""Replies decoded through a runtime's own KV cache: greedy and sampled, against the reference's.

One sampler and one stream of random numbers serve every runtime: two seeds of the very same model
soon write different texts, so only shared numbers let a difference mean something.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.degeneration import Scorer, TextQuality
from runtimes.parity.divergence import TEMPERATURE, TOP_P, compare, nucleus
from runtimes.parity.fields import AnyFloat
from runtimes.parity.prefill import logits_from
from runtimes.parity.replies import REPLIES_SHOWN, Detokenize, Reply, reply_texts
from runtimes.parity.suite import Document
from runtimes.protocol import Runtime

# Tokens of a reply that does not stop by itself.
REPLY_TOKENS = 48
SEED = 20240816

# The step's number and logits float32 [V] → the next token.
Choose = Callable[[int, np.ndarray], int]


@dataclass(frozen=True)
class Decoded:
    """One reply, the logits [V] that chose each of its tokens, and the seconds of all steps."""

    reply: tuple[int, ...]
    rows: list[np.ndarray]
    seconds: float


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
    texts: TextQuality
    """How the export's replies read."""
    reference_texts: TextQuality
    """How the reference's read."""
    replies: tuple[tuple[int, ...], ...]
    """Token ids."""
    reference_replies: tuple[tuple[int, ...], ...]
    """Token ids."""
    shown: tuple[Reply, ...]
    """Some of the replies as text."""


@dataclass(frozen=True)
class GreedyReplies:
    """Greedy replies of a runtime, not judged yet; `cache_kl` is as in `GreedyResult`."""

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
    cache_kl: AnyFloat
    """Mean KL between one uncached pass and step-by-step decoding inside the runtime, nats."""
    tokens_per_second: float
    """Of decoding step by step."""
    texts: TextQuality
    """How the export's replies read."""
    reference_texts: TextQuality
    """How the reference's read."""
    replies: tuple[Reply, ...]
    """Some of the replies as text."""


def decode_greedily(
    runtime: Runtime, documents: Sequence[Document], stop_tokens: Collection[int]
) -> GreedyReplies:
    """Answer each chat document's prompt greedily, step by step."""
    cache_kl, replies, steps, seconds = [], [], 0, 0.0
    for document in documents:
        decoded = decode(runtime, document.prompt, REPLY_TOKENS, _most_likely, stop_tokens)
        seconds += decoded.seconds
        steps += len(decoded.reply) - 1
        replies.append(decoded.reply)
        read = [*document.prompt, *decoded.reply[:-1]]
        uncached = logits_from(runtime, read, len(document.prompt) - 1)
        metrics = compare(uncached, np.stack(decoded.rows), decoded.reply)
        cache_kl.append(metrics.kl.mean())
    speed = steps / seconds if seconds else 0.0
    return GreedyReplies(tuple(replies), float(np.mean(cache_kl)), speed)


def greedy_result(
    documents: Sequence[Document], decoded: GreedyReplies, scorer: Scorer, detokenize: Detokenize
) -> GreedyResult:
    """Compare greedy replies with the reference's.

    Those may have been cut where batching changed them: what goes on after their end still agrees.
    """
    agreed, texts = [], []
    for document, reply in zip(documents, decoded.replies, strict=True):
        agreed.append(first_difference(reply, document.reply))
        same = agreed[-1] == len(document.reply)
        own = reply[: agreed[-1]] if same else reply
        texts.append(
            reply_texts(document.id, document.prompt, document.reply, own, agreed[-1], detokenize)
        )
    prompts = [document.prompt for document in documents]
    lengths = [len(document.reply) for document in documents]
    return GreedyResult(
        prompts=len(documents),
        identical=sum(a == n for a, n in zip(agreed, lengths, strict=True)),
        agreed_tokens=float(np.mean(agreed)),
        reply_tokens=float(np.mean(lengths)),
        cache_kl=decoded.cache_kl,
        tokens_per_second=decoded.tokens_per_second,
        texts=scorer.quality(prompts, decoded.replies),
        reference_texts=scorer.quality(prompts, [document.reply for document in documents]),
        replies=tuple(texts[:REPLIES_SHOWN]),
    )


def sampled_result(
    documents: Sequence[Document],
    replies: Sequence[tuple[int, ...]],
    expected: Sequence[Sequence[int]],
    scorer: Scorer,
    detokenize: Detokenize,
) -> SampledResult:
    """Compare sampled replies to each chat document's prompt with `expected`."""
    prompts = [document.prompt for document in documents]
    theirs = [tuple(reply) for reply in expected]
    pairs = list(zip(replies, theirs, strict=True))
    agreed = [first_difference(a, b) for a, b in pairs]
    shown = [
        reply_texts(document.id, document.prompt, b, a, count, detokenize)
        for document, (a, b), count in zip(documents, pairs, agreed, strict=True)
    ]
    return SampledResult(
        prompts=len(prompts),
        identical=sum(a == b for a, b in pairs),
        agreed_tokens=float(np.mean(agreed)),
        reply_tokens=float(np.mean([len(reply) for reply in theirs])),
        texts=scorer.quality(prompts, replies),
        reference_texts=scorer.quality(prompts, theirs),
        replies=tuple(replies),
        reference_replies=tuple(theirs),
        shown=tuple(shown[:REPLIES_SHOWN]),
    )


def sampled_reply(
    runtime: Runtime, prompt: Sequence[int], stop_tokens: Collection[int]
) -> tuple[int, ...]:
    """Up to `REPLY_TOKENS` sampled tokens, the first stop token included."""
    numbers = uniforms(prompt)
    return decode(
        runtime, prompt, REPLY_TOKENS, lambda step, row: draw(row, numbers[step]), stop_tokens
    ).reply


def uniforms(prompt: Sequence[int]) -> np.ndarray:
    """The random numbers that choose a reply to this prompt, one a step: float64 in [0, 1)."""
    digest = hashlib.sha256(np.asarray(prompt, "<i8").tobytes()).digest()
    return np.random.default_rng([SEED, *digest]).random(REPLY_TOKENS)


def draw(
    logits: np.ndarray, uniform: float, temperature: float = TEMPERATURE, top_p: float = TOP_P
) -> int:
    """The token where the sampling distribution's cumulative sum, by token id, passes `uniform`.

    Ordered by id, not by probability: where two tokens are about equally likely, runtimes would
    put them in either order.
    """
    chances = sorted(nucleus(logits.astype(np.float64), temperature, top_p).items())
    index = int(np.searchsorted(np.cumsum([mass for _, mass in chances]), uniform, side="right"))
    return chances[min(index, len(chances) - 1)][0]


def decode(
    runtime: Runtime,
    prompt: Sequence[int],
    count: int,
    choose: Choose,
    stop_tokens: Collection[int],
) -> Decoded:
    """Up to `count` tokens after a prompt, step by step; a stop token ends them and is included."""
    rows = [runtime.start(prompt)]
    reply = [choose(0, rows[0])]
    begin = time.perf_counter()
    while len(reply) < count and reply[-1] not in stop_tokens:
        rows.append(runtime.step(reply[-1]))
        reply.append(choose(len(reply), rows[-1]))
    return Decoded(tuple(reply), rows, time.perf_counter() - begin)


def first_difference(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the common prefix."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


def _most_likely(_: int, logits: np.ndarray) -> int:
    return int(logits.argmax())
