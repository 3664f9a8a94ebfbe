"""What a run is at, what each part of it took, and about how long the rest takes."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproof.display import duration, errors_on_terminal

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spent:
    """What one phase of one subject took; CPU seconds are of all threads, ended processes too."""

    subject: str
    """The reference, an artifact's format and variant, or the recovery of several."""
    phase: str
    seconds: float
    cpu_seconds: float


@contextlib.contextmanager
def timed(subject: str, phase: str) -> Iterator[None]:
    """Log what something took (event "spent") that tells of itself what it is at."""
    begin, cpu = time.perf_counter(), _cpu_seconds()
    try:
        yield
    finally:
        spent = Spent(subject, phase, time.perf_counter() - begin, _cpu_seconds() - cpu)
        log.info("spent", extra=vars(spent))


class Stages:
    """Tells what is done, on stderr, and logs what each phase took (event "spent").

    A subject has phases, one after the other. What is left takes about what the artifacts before
    took, each.
    """

    def __init__(self) -> None:
        self.spent: list[Spent] = []
        self._subject, self._place = "", ""
        self._expected: Sequence[str] = ()
        self._begun = time.perf_counter()
        self._artifacts: list[float] = []  # seconds of those that are done

    def expect(self, artifacts: Sequence[str]) -> None:
        """Which artifacts there will be, in their order."""
        self._expected, self._artifacts = artifacts, []

    @contextlib.contextmanager
    def artifact(self, label: str) -> Iterator[Callable[[str], None]]:
        """One of the expected artifacts, of which what is given is told what was found.

        Then a line says that, what it took, and about what is left.
        """
        self._subject, first, begin = label, len(self.spent), time.perf_counter()
        self._place = f"[{len(self._artifacts) + 1}/{len(self._expected)}] "
        found: list[str] = []
        yield found.append
        self._artifacts.append(time.perf_counter() - begin)
        self._say(self.spent[first:], self._left(), *found)

    @contextlib.contextmanager
    def subject(self, label: str) -> Iterator[None]:
        """Anything else; then a line says what it took."""
        self._subject, self._place, first = label, "", len(self.spent)
        yield
        self._say(self.spent[first:], "")

    @contextlib.contextmanager
    def phase(self, name: str, steps: int | None = None) -> Iterator[Callable[[], None]]:
        """A phase; what is given is called after each step, if it has steps."""
        begin, cpu = time.perf_counter(), _cpu_seconds()
        with self._bar(name, steps) as advance:
            try:
                yield advance
            finally:
                seconds = time.perf_counter() - begin
                spent = Spent(self._subject, name, seconds, _cpu_seconds() - cpu)
                self.spent.append(spent)
                log.info("spent", extra=vars(spent))

    @contextlib.contextmanager
    def _bar(self, name: str, steps: int | None) -> Iterator[Callable[[], None]]:
        """The live view where stderr is a terminal."""
        if not errors_on_terminal():
            yield lambda: None
            return
        from runtimes.parity.live import Whole, shown

        done, total = len(self._artifacts), len(self._expected)
        begun, following = self._begun, self._expected[done + bool(self._place) :]
        whole = Whole(done, total, lambda: time.perf_counter() - begun, self._left(), following)
        now = f"{self._place}{self._subject}: {name}"
        with shown(_console(), whole, now, steps) as advance:
            yield advance

    def _left(self) -> str:
        """About how long the artifacts take that are not done; empty where nothing tells."""
        left = len(self._expected) - len(self._artifacts)
        if not self._artifacts or not left:
            return ""
        return f"about {duration(left * sum(self._artifacts) / len(self._artifacts))} left"

    def _say(self, spent: Sequence[Spent], left: str, *found: str) -> None:
        whole = sum(item.seconds for item in spent)
        parts = ", ".join(f"{item.phase} {item.seconds:.0f}" for item in spent if item.seconds > 1)
        took = f"{whole:.0f} s" + (f" ({parts})" if parts else "")
        line = "; ".join([*found, took, *([left] if left else [])])
        _console().print(
            f"  {self._place}{self._subject}: {line}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])
