"""How far a recovery is, and the time left: lines on stderr, not more than one in some seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgeproof.display import duration

INTERVAL = 15.0  # seconds
WORTH_SAYING = 60.0  # seconds


@dataclass
class Progress:
    """Stages by their share of the work; what was taken from the cache takes no time.

    `say` writes a line, `clock` gives seconds.
    """

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _begun: float = field(init=False)
    _last: float = field(init=False)
    _ahead: float = 0.0
    _fixed: float = 0.0
    _done: float = 0.0

    def __post_init__(self) -> None:
        self._begun = self._last = self.clock()

    def plan(self, seconds: float) -> None:
        """There is more to do: so many seconds on a machine that the estimate was made on."""
        self._ahead += seconds

    @property
    def planned(self) -> float:
        """Seconds of all that is planned and not done, where the estimate was made."""
        return self._ahead + self._fixed

    def advance(self, seconds: float, what: str) -> None:
        """So much of the plan is done; `what` is being done now."""
        self._done += seconds
        self._ahead = max(0.0, self._ahead - seconds)
        now = self.clock()
        if now - self._last >= INTERVAL and self._done > 0:
            self._last = now
            left = (now - self._begun) / self._done * self._ahead + self._fixed
            self.say(f"{what}, about {duration(left)} left")

    def plan_time(self, seconds: float) -> None:
        """So long is something else done, whatever the machine."""
        self._fixed += seconds

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Do that meanwhile; how long the rest takes does not follow from it."""
        began = self.clock()
        yield
        self._fixed = 0.0
        self._begun += self.clock() - began

    def skip(self, seconds: float) -> None:
        """That part of the plan is done already."""
        self._ahead = max(0.0, self._ahead - seconds)
