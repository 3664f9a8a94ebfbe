"""What every way of doing steps gives: what begins where, and what becomes of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgeproof.steps.graph import Given
from edgeproof.steps.step import Step
from edgeproof.steps.work import Outcome


@dataclass(frozen=True)
class Begun:
    """A step is being done; `where` tells by whom."""

    step: Step
    where: str


@dataclass(frozen=True)
class Ended:
    """A step is done, or has failed."""

    step: Step
    outcome: Outcome


Event = Begun | Ended


class Executor(Protocol):
    """Does steps, whose results go into a store, each when those that it rests on are done."""

    def run(
        self, steps: Sequence[Step], given: Sequence[Given] = ()
    ) -> Generator[Event, None, None]:
        """Do them, from what is given on this machine: one `Ended` for each step.

        Whoever closes the generator before its end ends what is being done.
        """
