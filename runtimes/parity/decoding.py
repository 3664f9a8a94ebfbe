"""Replies decoded through a runtime's own KV cache, one by one or several together.

One sampler and one stream of random numbers serve every runtime: two seeds of the very same model
soon write different texts, so only shared numbers let a difference mean something.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.divergence import TEMPERATURE, TOP_P, nucleus
from runtimes.protocol import ManyRuntime, Runtime

SEED = 20240816
# Replies that are decoded together: their KV caches are in memory at the same time.
TOGETHER = 8
# Prompts that are read together are read in one call, whose attention scores grow with the square.
LONGEST_TOGETHER = 512
# The first logits of a reply that are kept: those of 8 long replies would need 400 MB.
ROWS_KEPT = 48


class NotFinite(ValueError):
    """Logits that no token can be drawn from: NaN or infinite."""


# The step's number and logits float32 [V] → the next token.
Choose = Callable[[int, np.ndarray], int]


@dataclass(frozen=True)
class Task:
    """A reply of at most `count` tokens to a non-empty prompt."""

    prompt: Sequence[int]
    count: int
    choose: Choose


@dataclass(frozen=True)
class Decoded:
    """One reply, and the logits [V] that chose the first of its tokens.

    A stop token ends a reply and is included. `seconds` are those of its steps; None where others
    were decoded with it.
    """

    reply: tuple[int, ...]
    rows: list[np.ndarray]
    seconds: float | None = None


def greedy(prompt: Sequence[int], count: int) -> Task:
    """The most likely token at each step, whatever the checkpoint's generation config says."""
    return Task(prompt, count, lambda _, logits: int(logits.argmax()))


def sampled(prompt: Sequence[int], count: int) -> Task:
    """The shared sampler with the prompt's own random numbers."""
    numbers = uniforms(prompt, count)
    return Task(prompt, count, lambda step, logits: draw(logits, numbers[step]))


def decode(runtime: Runtime, task: Task, stop_tokens: Collection[int]) -> Decoded:
    """One reply by `start` and `step`."""
    rows = [runtime.start(task.prompt)]
    reply = [task.choose(0, rows[0])]
    begin = time.perf_counter()
    while len(reply) < task.count and reply[-1] not in stop_tokens:
        row = runtime.step(reply[-1])
        if len(rows) < ROWS_KEPT:
            rows.append(row)
        reply.append(task.choose(len(reply), row))
    return Decoded(tuple(reply), rows, time.perf_counter() - begin)


def decode_all(
    runtime: Runtime, tasks: Sequence[Task], stop_tokens: Collection[int], *, together: bool
) -> Iterator[Decoded]:
    """All replies in order; with `together`, several at a time where the runtime can.

    Those with long prompts are decoded alone, and so is their company.
    """
    for first in range(0, len(tasks), TOGETHER):
        group = tasks[first : first + TOGETHER]
        short = max(len(task.prompt) for task in group) <= LONGEST_TOGETHER
        if together and short and isinstance(runtime, ManyRuntime):
            yield from _decode_together(runtime, group, stop_tokens)
        else:
            yield from (decode(runtime, task, stop_tokens) for task in group)


def _decode_together(
    runtime: ManyRuntime, tasks: Sequence[Task], stop_tokens: Collection[int]
) -> list[Decoded]:
    """Replies that have ended are given their last token again until the others have, too."""
    logits = runtime.start_many([task.prompt for task in tasks], max(task.count for task in tasks))
    replies = [[task.choose(0, row)] for task, row in zip(tasks, logits, strict=True)]
    rows = [[row.copy()] for row in logits]

    def growing() -> list[int]:
        return [
            index
            for index, (task, reply) in enumerate(zip(tasks, replies, strict=True))
            if len(reply) < task.count and reply[-1] not in stop_tokens
        ]

    while unfinished := growing():
        logits = runtime.step_many([reply[-1] for reply in replies])
        for index in unfinished:
            if len(rows[index]) < ROWS_KEPT:
                rows[index].append(logits[index].copy())
            replies[index].append(tasks[index].choose(len(replies[index]), logits[index]))
    return [Decoded(tuple(a), b) for a, b in zip(replies, rows, strict=True)]


def uniforms(prompt: Sequence[int], count: int) -> np.ndarray:
    """The random numbers that choose a reply to this prompt: float64 in [0, 1), one a step."""
    digest = hashlib.sha256(np.asarray(prompt, "<i8").tobytes()).digest()
    return np.random.default_rng([SEED, *digest]).random(count)


def draw(
    logits: np.ndarray, uniform: float, temperature: float = TEMPERATURE, top_p: float = TOP_P
) -> int:
    """The token where the sampling distribution's cumulative sum, by token id, passes `uniform`.

    Ordered by id, not by probability: where two tokens are about equally likely, runtimes would
    put them in either order.

    Raises:
        NotFinite: NaN is among the logits, or the largest is infinite.
    """
    if not np.isfinite(logits.max()):
        raise NotFinite("NaN or infinite logits")
    chances = sorted(nucleus(logits.astype(np.float64), temperature, top_p).items())
    index = int(np.searchsorted(np.cumsum([mass for _, mass in chances]), uniform, side="right"))
    return chances[min(index, len(chances) - 1)][0]


def first_difference(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the common prefix."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
