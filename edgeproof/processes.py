"""Our commands as processes of other commands: who ends one ends those that it has begun.

Asked to end, a command asks them, and waits until they have tidied up; killed, they notice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGUN_BY = "EDGEPROOF_BEGUN_BY"  # the process that is to be outlived by no more than so long
QUIETLY = "quietly"
SECONDS = 0.5


def environment(*tells: str) -> dict[str, str]:
    """This process's, for one that is to end with it; with QUIETLY this one tells of that."""
    return {**os.environ, BEGUN_BY: " ".join((str(os.getpid()), *tells))}


def run(
    command: Sequence[str | Path], *, given: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of texts without its check, but what ends this process is passed on.

    What is `given` comes on its stdin.
    """
    if given is not None:
        options["stdin"] = subprocess.PIPE
    with subprocess.Popen(command, env=environment(QUIETLY), text=True, **options) as process:
        try:
            output, errors = process.communicate(given)
        except BaseException:
            process.terminate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def end_with_beginner() -> bool:
    """From now on SIGTERM comes when the process is gone that has begun this one, on POSIX.

    Returns whether that one tells of being interrupted, for both.
    """
    beginner, _, how = os.environ.pop(BEGUN_BY, "").partition(" ")
    if os.name == "posix" and beginner.isdecimal():
        threading.Thread(target=_wait_for_end, args=(int(beginner),), daemon=True).start()
    return how == QUIETLY


def _wait_for_end(beginner: int) -> None:
    while os.getppid() == beginner:
        time.sleep(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
