"""Survive what ends a process: a native library that aborts over an artifact.

A run is a process of its own, which notes what it is at; where it crashes, it is begun again, told
that it crashed there, and that artifact's verdict is the crash. What was found of others before is
taken (`finished`); only the reference is opened again. What is no crash (Ctrl-C, being killed, no
memory left) ends both.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType

from edgeproof.ending import OF_A_SIGNAL, Stopped
from edgeproof.errors import InputError
from edgeproof.files.atomic import scratch_folder
from edgeproof.json_text import parse_json
from edgeproof.processes import environment
from runtimes.footprint import Crash

CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
NTSTATUS_ERRORS = 0xC0000000  # what Windows gives as a crashed process's exit code, and above


class Stage(str, Enum):
    """What a run is at with an artifact."""

    COMPARE = "compare"
    LOCALISE = "localise"


@dataclass(frozen=True)
class Mark:
    """An artifact's folder and what the run was at with it."""

    stage: Stage
    artifact: str


@dataclass(frozen=True)
class Journal:
    """What a run tells its watcher, in the file `path`; and where runs before it have crashed."""

    path: Path | None = None
    crashes: tuple[tuple[Mark, str], ...] = ()

    def enter(self, stage: Stage, artifact: Path) -> None:
        """Note what comes next.

        Raises:
            Crash: it crashed there before.
        """
        mark = Mark(stage, str(artifact))
        for place, reason in self.crashes:
            if place == mark:
                self.leave()  # what was before it is done
                raise Crash(reason)
        self._write(json.dumps([mark.stage.value, mark.artifact]))

    @property
    def finished(self) -> Path | None:
        """The folder of what is done, for `Finished`: where the file is; None without one."""
        return self.path and self.path.with_name("finished")

    def leave(self) -> None:
        """Note that what comes next is no artifact's."""
        self._write("")

    def _write(self, text: str) -> None:
        if self.path is not None:
            self.path.write_text(text, "utf-8")


UNWATCHED = Journal()


def journal_of(path: Path | None, crashes: Sequence[tuple[str, str, str]]) -> Journal:
    """From the options that `watch` gives: its file; stage, folder and reason of each crash."""
    marks = [(Mark(Stage(stage), folder), reason) for stage, folder, reason in crashes]
    return Journal(path, tuple(marks))


def watch(module: str, arguments: Sequence[str]) -> int:
    """Run a module, again after each crash over an artifact; its exit code.

    Beside `arguments` it gets `--journal` and `--crashed`, for `journal_of`.

    Raises:
        InputError: it was ended, or crashed, over no artifact.
        Stopped: somebody ends both.
    """
    options: list[str] = []
    with scratch_folder(prefix="edgeproof-") as folder:
        journal = folder / "journal"
        while True:
            command = [sys.executable, "-m", module, f"--journal={journal}"]
            with (
                subprocess.Popen([*command, *options, *arguments], env=environment()) as run,
                _passing_on(run) as received,
            ):
                code = run.wait()
            if received and code < 0:  # before it took care of signals
                raise Stopped(OF_A_SIGNAL + received[0])
            how = _crash(code)
            if how is None:
                return code
            mark = _read(journal)
            if mark is None:
                raise InputError(f"the run was ended by {how}, over no artifact")
            options += ["--crashed", *mark, f"the run crashes: its process was ended by {how}"]
            journal.unlink()


@contextlib.contextmanager
def _passing_on(run: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Who asks this process to end asks the run; the signals that were received.

    A terminal sends Ctrl-C to both, and the run takes it once.
    """
    received: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        run.send_signal(number)

    asked = [signal.SIGTERM]
    if sys.platform != "win32":
        asked += [signal.SIGINT, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in asked}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, pass_on)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _crash(code: int) -> str | None:
    """What a process crashed by; None if it ended.

    Raises:
        InputError: somebody, or the system for want of memory, has ended it.
    """
    if os.name == "nt":
        return f"0x{code:X}" if code >= NTSTATUS_ERRORS else None
    if code >= 0:
        return None
    name = signal.Signals(-code).name
    if -code not in CRASHES:
        raise InputError(f"the run was ended by {name}: by somebody, or for want of memory")
    return name


def _read(journal: Path) -> tuple[str, str] | None:
    with contextlib.suppress(OSError, ValueError):
        stage, artifact = parse_json(journal.read_text("utf-8"))
        return stage, artifact
    return None
