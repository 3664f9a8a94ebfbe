"""Text that a model writes until a stop sequence, in the harness's conventions.

A stop sequence is looked for in the text of the last tokens, two more than it has itself, with
special tokens (lm-evaluation-harness, `MultiTokenEOSCriteria`); the text that is given back is
without them, and ends before the first stop sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.decoding import NotFinite
from runtimes.protocol import ManyRuntime, MarkedTextRuntime, RewindingRuntime
from runtimes.tasks.beginning import Beginning

LOOKBACK = 2  # tokens
Choose = Callable[[int, np.ndarray], int]


@dataclass(frozen=True)
class Wish:
    """A text of at most `most` tokens after a non-empty prompt."""

    prompt: tuple[int, ...]
    until: tuple[str, ...]
    most: int
    choose: Choose
    """The step's number and logits float32 [V] → the next token."""


def greedy(_: int, logits: np.ndarray) -> int:
    """The most likely token."""
    return int(logits.argmax())


class _Text:
    """A text as it grows."""

    def __init__(self, runtime: MarkedTextRuntime, wish: Wish) -> None:
        self._runtime, self._wish = runtime, wish
        self._back = [len(runtime.tokenize(text)) + LOOKBACK for text in wish.until]
        self.ids: list[int] = []
        self.ended = False

    def take(self, logits: np.ndarray) -> None:
        """Choose the next token.

        Raises:
            NotFinite: NaN is among the logits, or the largest is infinite.
        """
        if not np.isfinite(logits.max()):
            raise NotFinite("NaN or infinite logits")
        token = self._wish.choose(len(self.ids), logits)
        if token in self._runtime.stop_tokens:
            self.ended = True
            return
        self.ids.append(token)
        self.ended = len(self.ids) >= self._wish.most or any(
            text in self._runtime.detokenize(self.ids[-back:])
            for text, back in zip(self._wish.until, self._back, strict=True)
        )

    @property
    def text(self) -> str:
        """What is given back."""
        shown = [token for token in self.ids if token not in self._runtime.special_tokens]
        text = self._runtime.detokenize(shown) if shown else ""
        for stop in self._wish.until:
            text = text.split(stop)[0]
        return text


def write(runtime: MarkedTextRuntime, beginning: Beginning, wish: Wish) -> str:
    """The text that one wish gets."""
    text = _Text(runtime, wish)
    kept = beginning.shared(wish.prompt, len(wish.prompt) - 1)
    if kept and isinstance(runtime, RewindingRuntime):
        text.take(runtime.start(wish.prompt, kept))
    else:
        text.take(runtime.start(wish.prompt))
    read = []
    while not text.ended:
        read.append(text.ids[-1])
        text.take(runtime.step(read[-1]))
    beginning.grown(read)
    return text.text


def write_together(
    runtime: MarkedTextRuntime, beginning: Beginning, wishes: Sequence[Wish]
) -> Iterator[str]:
    """The texts of several wishes, whose sequences grow together where the runtime can.

    A text that has ended is given its last token again until the others have, too.
    """
    if not isinstance(runtime, ManyRuntime) or len(wishes) == 1:
        yield from (write(runtime, beginning, wish) for wish in wishes)
        return
    beginning.lost()
    texts = [_Text(runtime, wish) for wish in wishes]
    logits = runtime.start_many([wish.prompt for wish in wishes], max(wish.most for wish in wishes))
    beginning.asked += sum(len(wish.prompt) for wish in wishes)
    beginning.computed += sum(len(wish.prompt) for wish in wishes)
    last = [0] * len(wishes)
    while True:
        for number, text in enumerate(texts):
            if not text.ended:
                text.take(logits[number])
                last[number] = text.ids[-1] if text.ids else last[number]
        if all(text.ended for text in texts):
            break
        logits = runtime.step_many(last)
        beginning.asked += sum(not text.ended for text in texts)
        beginning.computed += len(texts)
    yield from (text.text for text in texts)
