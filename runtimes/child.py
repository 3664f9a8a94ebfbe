"""Another command of edgeproof, run as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_module(module: str, *arguments: str | Path) -> int:
    """Run `python -m module` on this process's terminal; its exit code.

    Whoever ends this process ends that one too, which then tidies up.
    """
    sys.stdout.flush()
    with subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)]) as run:
        try:
            return run.wait()
        except BaseException:
            run.terminate()
            raise
