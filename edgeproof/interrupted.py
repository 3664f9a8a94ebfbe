"""Ctrl-C in the first moments of `python -m …`, while modules are still imported: no traceback.

Packages of commands call `quietly` as they are imported; from then on a command takes care of
signals itself (`edgeproof.ending`). Invariant: nothing is imported here that takes time.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def quietly() -> None:
    """From now on Ctrl-C ends the program with 130, if it was begun as a module."""
    # What `python -m` has there until it has found the module.
    begun = sys.argv[:1] == ["-m"]
    if begun and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
