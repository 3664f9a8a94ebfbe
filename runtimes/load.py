"""Wall time, CPU time, and how much of the machine other programs took meanwhile."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
# The line's columns that are work (man 5 proc_stat): user, nice, system, irq, softirq, steal.
WORK = (0, 1, 2, 5, 6, 7)
# A clock of hundredths of a second tells nothing of less.
SHORTEST = 0.2
# Others may take as much of each thread's core before speeds are called disturbed.
TOLERATED = 0.1


@dataclass(frozen=True)
class Load:
    """What a piece of work took: seconds, CPU seconds of all its threads, and the others' share.

    `others` is in cores, time that a hypervisor took away included; None where the system does not
    tell, or the work was too short.
    """

    seconds: float
    cpu_seconds: float
    others: float | None


class Meter:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._work, self._cpu, self._begin = _work(), time.process_time(), time.perf_counter()

    def load(self) -> Load:
        """Since then."""
        seconds, cpu = time.perf_counter() - self._begin, time.process_time() - self._cpu
        now = _work()
        if self._work is None or now is None or seconds < SHORTEST:
            return Load(seconds, cpu, None)
        return Load(seconds, cpu, max(0.0, (now - self._work - cpu) / seconds))


def disturbed(others: float | None, threads: int, cores: int) -> bool:
    """Whether so many threads had less than their cores, given how many others took."""
    return others is not None and others > max(0, cores - threads) + TOLERATED * threads


def _work() -> float | None:
    """CPU seconds that all programs have taken since the machine was started; None if unknown."""
    if sys.platform == "win32":
        return None
    try:
        fields = STAT.read_text("ascii").split("\n", 1)[0].split()[1:]
        return sum(int(fields[column]) for column in WORK) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
