"""Run a command and read what the kernel counted for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """CPU seconds (user + system, all threads) and peak resident memory in megabytes."""

    cpu_seconds: float
    peak_mb: float


def measured(
    command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None
) -> Cost:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: it failed; its output is in the exception.
    """
    with subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)), output)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
