"""Processes that threads wait for, and that another thread can end."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence

from edgeproof.processes import QUIETLY, environment


class Children:
    """The processes that steps run in; after `end` there are none, and none begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether none begins any more."""
        return self._ended

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
        """Run a command to its end, with what it said; None where it was not begun any more."""
        with self._lock:
            if self._ended:
                return None
            process = subprocess.Popen(
                command,
                env=environment(QUIETLY),
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self._running.add(process)
        try:
            output, errors = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def end(self) -> None:
        """Ask all to end."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()
