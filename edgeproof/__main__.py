"""The console script, also as `python -m edgeproof`: from its first moment Ctrl-C is no traceback.

Invariant: nothing is imported at the top but what takes no time.
"""

from __future__ import annotations

import sys


def run() -> None:
    """Load the commands, and run one."""
    try:
        from edgeproof.cli import main

        main(prog_name="edgeproof")
    except KeyboardInterrupt:  # before the command took care of it
        sys.exit(130)


if __name__ == "__main__":
    run()
