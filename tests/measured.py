"""Run a command and read what the kernel counted for it.

The command is started by a small process of its own: a child inherits the peak memory of the
process that forks it, and pytest's is large.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = """
import json, os, sys
pid = os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


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
    with tempfile.NamedTemporaryFile() as report:
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, report.name, *map(str, command)]
        subprocess.run(
            launcher, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )
        cpu_seconds, peak_mb = json.loads(Path(report.name).read_text())
    return Cost(cpu_seconds, peak_mb)
