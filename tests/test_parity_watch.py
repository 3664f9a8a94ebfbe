"""A watched run survives crashes over artifacts, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from runtimes.footprint import Crash
from runtimes.parity.watch import Journal, Stage, journal_of, watch

RUN = """
import os, sys, signal
from pathlib import Path
import click
from runtimes.footprint import Crash
from runtimes.parity.watch import Stage, journal_of

@click.command()
@click.option("--journal", type=Path)
@click.option("--crashed", type=(str, str, str), multiple=True)
@click.argument("bad", nargs=-1)
def main(journal, crashed, bad):
    log = Path(__file__).with_name("log").open("a")
    notes = journal_of(journal, crashed)
    for stage in Stage:
        for name in "abc":
            try:
                notes.enter(stage, Path(name))
            except Crash as error:
                print(stage.value, name, error, file=log, flush=True)
                continue
            for entry in bad:
                where, _, number = entry.partition("=")
                if where == f"{stage.value}:{name}":
                    os.kill(os.getpid(), int(number))
    notes.leave()
    for entry in bad:
        if entry.startswith("end="):
            os.kill(os.getpid(), int(entry[4:]))
    print("whole", file=log)
    sys.exit(1 if crashed else 0)
main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "crashing_run.py").write_text(RUN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    return tmp_path


def test_a_run_without_crashes_runs_once(folder: Path) -> None:
    assert watch("crashing_run", []) == 0
    assert (folder / "log").read_text() == "whole\n"


def test_each_crash_is_told_to_the_next_run(folder: Path) -> None:
    assert watch("crashing_run", ["compare:b=11", "localise:c=6"]) == 1
    *told, end = (folder / "log").read_text().splitlines()
    assert end == "whole"
    assert told[-2:] == [
        "compare b the run crashes: its process was ended by SIGSEGV",
        "localise c the run crashes: its process was ended by SIGABRT",
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("compare:b=9", "SIGKILL: by somebody, or for want of memory"),
        ("compare:b=15", "SIGTERM: by somebody"),
        ("end=11", "SIGSEGV, over no artifact"),
    ],
)
def test_what_is_no_crash_over_an_artifact_ends_the_run(
    folder: Path, bad: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        watch("crashing_run", [bad])
    assert not (folder / "log").read_text()


def test_who_ends_the_watcher_ends_the_run(folder: Path) -> None:
    (folder / "sleeping_run.py").write_text(
        "import sys, time\nprint('here', flush=True)\ntime.sleep(600)\n"
    )
    code = "from runtimes.parity.watch import watch; watch('sleeping_run', [])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        assert watcher.stdout.readline() == "here\n"
        watcher.terminate()
        # The pipe ends only when the run is gone, too.
        assert watcher.stdout.read() == ""
        assert watcher.stderr.read() == ""
        assert watcher.wait() == 128 + signal.SIGTERM


def test_nobody_needs_to_watch(tmp_path: Path) -> None:
    Journal().enter(Stage.COMPARE, tmp_path)
    Journal().leave()
    crashed = journal_of(None, [("compare", str(tmp_path), "why")])
    crashed.enter(Stage.LOCALISE, tmp_path)
    with pytest.raises(Crash, match="why"):
        crashed.enter(Stage.COMPARE, tmp_path)


def test_what_comes_after_a_known_crash_is_not_blamed_on_the_artifact_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    notes = journal_of(path, [("localise", "b", "it crashes")])
    notes.enter(Stage.LOCALISE, Path("a"))
    with pytest.raises(Crash, match="it crashes"):
        notes.enter(Stage.LOCALISE, Path("b"))
    assert path.read_text() == ""
