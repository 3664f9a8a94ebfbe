"""How likely a model finds continuations, token by token, in the harness's conventions.

A sequence that is too long loses tokens on its left, and its last token is not read: nothing
follows it (lm-evaluation-harness, `HFLM._loglikelihood_tokens`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from edgeproof.errors import InputError
from runtimes.parity.decoding import NotFinite
from runtimes.protocol import RewindingRuntime, Runtime
from runtimes.tasks.beginning import Beginning


@dataclass(frozen=True)
class Continuation:
    """Token ids that follow others; neither is empty."""

    context: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """The sum of log-probabilities in nats, and whether greedy decoding would write the same."""

    loglikelihood: float
    greedy: bool


@dataclass(frozen=True)
class _Part:
    """What is read for a continuation, and the position whose logits are about its first token."""

    index: int
    read: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def first(self) -> int:
        return len(self.read) - len(self.target)


def score(
    runtime: Runtime, beginning: Beginning, items: Sequence[Continuation]
) -> Iterator[tuple[int, Scored]]:
    """Every item's index and score, in an order in which neighbours share what they begin with.

    Raises:
        InputError: a continuation is longer than the model's context.
        NotFinite: NaN is among the logits, or the largest is infinite.
    """
    parts = [_part(index, item, runtime.context) for index, item in enumerate(items)]
    parts.sort(key=lambda part: part.read)
    for read, group in groupby(parts, key=lambda part: part.read):
        same = list(group)
        yield from zip(
            (part.index for part in same), _scores(runtime, beginning, read, same), strict=True
        )


def _part(index: int, item: Continuation, context: int) -> _Part:
    if len(item.target) > context:
        raise InputError(
            f"a continuation has {len(item.target)} tokens, the model was made for {context}"
        )
    read = (item.context + item.target)[-(context + 1) :][:-1]
    return _Part(index, read, item.target)


def _scores(
    runtime: Runtime, beginning: Beginning, read: tuple[int, ...], parts: Sequence[_Part]
) -> list[Scored]:
    """Of parts that read the same tokens, block by block of the logits."""
    first = min(part.first for part in parts)
    kept = beginning.shared(read, first)
    if kept and isinstance(runtime, RewindingRuntime):
        blocks = runtime.logit_blocks(read, first, kept)
    else:
        blocks = runtime.logit_blocks(read, first)
    sums, greedy = [0.0] * len(parts), [True] * len(parts)
    begin = first
    for block in blocks:  # [n, V], positions from `begin` on
        highest = block.max(-1)
        if not np.isfinite(highest).all():
            raise NotFinite("NaN or infinite logits")
        totals = highest + np.log(np.exp(block - highest[:, None]).sum(-1, dtype=np.float64))
        best = block.argmax(-1)
        end = begin + len(block)
        for number, part in enumerate(parts):
            rows = np.arange(max(begin, part.first), end) - begin
            tokens = np.array(part.target[max(begin, part.first) - part.first :][: len(rows)], int)
            sums[number] += float((block[rows, tokens] - totals[rows]).sum(dtype=np.float64))
            greedy[number] &= bool((best[rows] == tokens).all())
        begin = end
    return [Scored(*pair) for pair in zip(sums, greedy, strict=True)]
