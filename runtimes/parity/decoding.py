"""Greedy decoding through a runtime's own KV cache: divergence from the reference, cache faults."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.metrics import compare
from runtimes.parity.replies import Detokenize, Reply, reply_texts
from runtimes.parity.suite import Document
from runtimes.protocol import Runtime

# Cached and uncached passes may use other kernels; a wrong cache costs whole nats.
CACHE_KL_LIMIT = 0.02


@dataclass(frozen=True)
class GreedyResult:
    """Greedy replies against the reference's.

    `agreed_tokens` is the mean number of tokens before the first difference; `cache_kl` the mean
    KL between one uncached pass and step-by-step decoding inside the runtime, in nats.
    """

    prompts: int
    identical: int
    agreed_tokens: float
    reply_tokens: float
    cache_kl: float
    tokens_per_second: float
    replies: tuple[Reply, ...]


def decode_greedily(
    runtime: Runtime, documents: Sequence[Document], detokenize: Detokenize
) -> GreedyResult:
    """Answer each chat document's prompt greedily, as long as the reference's reply."""
    agreed, cache_kl, texts, steps = [], [], [], 0
    seconds = 0.0
    for document in documents:
        prompt = document.ids[: document.prompt_length]
        rows = [runtime.start(prompt)]
        begin = time.perf_counter()
        for _ in document.reply[1:]:
            rows.append(runtime.step(int(rows[-1].argmax())))
        seconds += time.perf_counter() - begin
        steps += len(rows) - 1
        reply = [int(row.argmax()) for row in rows]
        agreed.append(first_difference(reply, document.reply))
        texts.append(
            reply_texts(document.id, prompt, document.reply, reply, agreed[-1], detokenize)
        )
        uncached = runtime.logits([*prompt, *reply[:-1]])[len(prompt) - 1 :]
        (metrics,) = compare(uncached, [np.stack(rows)], reply)
        cache_kl.append(metrics.kl.mean())
    lengths = [len(document.reply) for document in documents]
    return GreedyResult(
        prompts=len(documents),
        identical=sum(a == n for a, n in zip(agreed, lengths, strict=True)),
        agreed_tokens=float(np.mean(agreed)),
        reply_tokens=float(np.mean(lengths)),
        cache_kl=float(np.mean(cache_kl)),
        tokens_per_second=steps / seconds if seconds else 0.0,
        replies=tuple(texts),
    )


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
