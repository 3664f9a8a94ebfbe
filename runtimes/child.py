"""Another command of edgeproof, run as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeproof.processes import run


def run_module(module: str, *arguments: str | Path) -> int:
    """Run `python -m module` on this process's terminal; its exit code.

    Whoever ends this process ends that one too, which then tidies up.
    """
    sys.stdout.flush()
    return run([sys.executable, "-m", module, *map(str, arguments)]).returncode
