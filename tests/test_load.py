"""CPU seconds beside wall time, and what other programs took meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runtimes.load import SHORTEST, Meter, disturbed

IDLE = 10_000


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stat"
    monkeypatch.setattr("runtimes.load.STAT", path)
    return path


def write(path: Path, user: float, steal: float = 0.0) -> None:
    """A machine whose programs have worked for so many seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    columns = (round(user * ticks), 0, 0, IDLE, 70, 0, 0, round(steal * ticks), 5, 0)
    path.write_text("cpu  " + " ".join(map(str, columns)) + "\ncpu0 1 2 3\n", "ascii")


def work(seconds: float) -> None:
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass


@pytest.mark.parametrize("stolen", [0.0, 2.0])
def test_what_others_and_the_hypervisor_took_is_told_from_ones_own(
    stat: Path, stolen: float
) -> None:
    write(stat, user=50.0)
    meter = Meter()
    work(1.5 * SHORTEST)
    write(stat, user=53.0, steal=stolen)
    found = meter.load()
    assert found.cpu_seconds >= 1.5 * SHORTEST
    assert found.seconds >= SHORTEST
    expected = (3.0 + stolen - found.cpu_seconds) / found.seconds
    assert found.others == pytest.approx(expected)


def test_what_only_this_process_took_is_not_others(stat: Path) -> None:
    write(stat, user=1.0)
    meter = Meter()
    work(1.5 * SHORTEST)
    write(stat, user=1.0 + SHORTEST)
    assert meter.load().others == 0.0


def test_a_moment_and_a_system_that_tells_nothing_have_none(stat: Path) -> None:
    write(stat, user=1.0)
    assert Meter().load().others is None
    stat.write_text("intr 5\n")
    meter = Meter()
    work(1.5 * SHORTEST)
    assert meter.load().others is None
    stat.unlink()
    assert meter.load().others is None
    assert meter.load().cpu_seconds > SHORTEST


@pytest.mark.parametrize(
    ("others", "threads", "cores", "expected"),
    [
        (0.1, 2, 2, False),
        (0.3, 2, 2, True),
        (0.9, 1, 2, False),  # the other core was theirs
        (1.2, 1, 2, True),
        (40.0, 2, 64, False),
        (62.5, 2, 64, True),
        (0.5, 8, 4, False),  # more threads than cores: they take turns anyway
        (None, 2, 2, False),
    ],
)
def test_speeds_are_disturbed_where_threads_lack_their_cores(
    others: float | None, threads: int, cores: int, expected: bool
) -> None:
    assert disturbed(others, threads, cores) is expected
