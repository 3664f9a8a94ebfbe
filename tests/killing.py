"""Commands that are ended at a chosen moment of their work.

Each command is a process of its own, forked from one that has imported what it needs and done
nothing else, so that moments are of the work and not of imports. A moment is a share of it: of the
processor's time that it takes undisturbed, or of the changes that it makes to the disk (the n-th
file that is opened for writing, renamed, removed …), whatever the machine's speed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# What changes the disk; `ctypes` has the exchange of two folders.
CHANGES = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
)
EXCHANGE = "ctypes.call_function"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MOST_SECONDS = 120.0
NO_END = 99  # no command ends so


@dataclass(frozen=True)
class Moment:
    """When a signal comes: after so many seconds of processor time, or before the n-th change."""

    number: int
    seconds: float | None = None
    change: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended; seconds and changes are those of its work, unless it was killed."""

    code: int
    output: str
    seconds: float = 0.0
    changes: int = 0


class Runner:
    """Runs commands of edgeproof in processes that have their modules already."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, *arguments: str | Path, moment: Moment | None = None, **env: str | Path) -> Ended:
        """Run one; ended at that moment, if it takes so long."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        asked = {
            "arguments": list(map(str, arguments)),
            "moment": moment and asdict(moment),
            "env": {name: str(value) for name, value in env.items()},
        }
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))


@contextlib.contextmanager
def runner(*modules: str) -> Iterator[Runner]:
    """What runs commands that need these modules; `MODULE.NAME=NUMBER` makes something smaller."""
    command = [sys.executable, "-m", "tests.killing", *modules]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield Runner(server)
        assert server.stdin is not None
        server.stdin.close()


def serve(arguments: list[str]) -> None:
    """Answer requests, one a line; arguments are modules to import and NAME=NUMBER to set."""
    from edgeproof.cli import main

    for text in arguments:
        name, _, number = text.partition("=")
        if number:
            module, _, constant = name.rpartition(".")
            setattr(import_module(module), constant, int(number))
        else:
            import_module(name)
    for line in sys.stdin:
        ended = _forked(main, json.loads(line))
        sys.stdout.write(json.dumps(asdict(ended)) + "\n")
        sys.stdout.flush()


def _forked(main: Any, asked: dict[str, Any]) -> Ended:
    moment = asked["moment"] and Moment(**asked["moment"])
    # No `TemporaryDirectory`: the child would remove it as it ends.
    folder = Path(tempfile.mkdtemp())
    said, told = folder / "said", folder / "told"
    child = os.fork()
    if child == 0:
        try:
            _work(main, asked, moment, said, told)
        finally:  # whatever it raises: what follows is the parent's
            os._exit(NO_END)
    status = _watched(child, moment)
    output = said.read_text("utf-8", "replace")
    counted = json.loads(told.read_text()) if told.exists() else {}
    shutil.rmtree(folder)
    return Ended(os.waitstatus_to_exitcode(status), output, **counted)


def _watched(child: int, moment: Moment | None) -> int:
    """Wait for it; at its moment it gets the signal."""
    clock = (~child << 3) | 2  # of the processor time of all its threads, as Linux numbers it
    seconds = None if moment is None else moment.seconds
    end = time.monotonic() + MOST_SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        with contextlib.suppress(OSError):  # it ends just now
            if moment and seconds is not None and time.clock_gettime(clock) >= seconds:
                os.kill(child, moment.number)
                seconds = None
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError("a command hangs")
        time.sleep(0.0005 if seconds is not None else 0.01)


def _work(main: Any, asked: dict[str, Any], moment: Moment | None, said: Path, told: Path) -> None:
    """In the child: run the command, and end as a program does."""
    os.environ.update(asked["env"])
    tempfile.tempdir = None
    output = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    begun, changes, code = time.process_time(), 0, 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event in CHANGES or event == EXCHANGE or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        ):  # fmt: skip
            changes += 1
            if moment is not None and changes == moment.change:
                os.kill(os.getpid(), moment.number)

    sys.addaudithook(hook)
    try:
        main(asked["arguments"], prog_name="edgeproof")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        code = NO_END
    counted = {"seconds": time.process_time() - begun, "changes": changes}
    moment = None
    atexit._run_exitfuncs()
    sys.stdout.flush()
    told.write_text(json.dumps(counted))
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1:])
