"""One reply, token by token, with the sampler and the random numbers of the parity run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.chat.voice import Voice
from runtimes.parity.decoding import draw

HALF = "\ufffd"  # what the first bytes of a character decode to


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the most likely one."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int

    def numbers(self, turn: int) -> np.ndarray:
        """The random numbers of a turn's reply, the same for every voice: float64 [max_tokens]."""
        return np.random.default_rng([self.seed, turn]).random(self.max_tokens)

    def choose(self, logits: np.ndarray, number: float) -> int:
        """The next token after logits [V]."""
        if self.temperature == 0:
            return int(logits.argmax())
        return draw(logits, number, self.temperature, self.top_p)


class Reply:
    """A reply as it grows: iterate to have the next token written; stopping half-way is fine.

    `ids` are the tokens yet, the one that ends it left out; `seconds` are the runtime's own.
    """

    def __init__(self, voice: Voice, prompt: Sequence[int], sampling: Sampling, turn: int) -> None:
        self.ids: list[int] = []
        self.first_seconds = 0.0
        self.seconds = 0.0
        self._voice, self._prompt = voice, prompt
        self._sampling, self._numbers = sampling, sampling.numbers(turn)

    def __iter__(self) -> Iterator[int]:
        """The tokens, as they are decoded through the runtime's KV cache."""
        runtime = self._voice.runtime
        ends = runtime.stop_tokens
        room = min(self._sampling.max_tokens, runtime.context - len(self._prompt))
        for number in self._numbers[:room]:
            begin = time.perf_counter()
            logits = runtime.step(self.ids[-1]) if self.ids else runtime.start(self._prompt)
            token = self._sampling.choose(logits, float(number))
            self.seconds += time.perf_counter() - begin
            self.first_seconds = self.first_seconds or self.seconds
            if token in ends:
                return
            self.ids.append(token)
            yield token

    @property
    def text(self) -> str:
        """The text yet, without the half of a character at its end."""
        return self._voice.runtime.detokenize(self.ids).rstrip(HALF) if self.ids else ""

    @property
    def pace(self) -> str:
        """Tokens, tokens per second after the first, and the time to the first."""
        rest = self.seconds - self.first_seconds
        speed = f", {(len(self.ids) - 1) / rest:.1f} tokens/s" if len(self.ids) > 1 and rest else ""
        return f"{len(self.ids)} tokens{speed}, first after {self.first_seconds:.2f} s"
