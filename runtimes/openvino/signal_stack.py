"""A thread's stack for signals, which OpenVINO's CPU plugin replaces and does not give back.

Where the processor has AMX, the plugin (2026.4.1) sets one of its own while it compiles a model.
Once the model is gone, a Python handler that is called on it (Ctrl-C's) ends the process with a
segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DISABLED = 2  # SS_DISABLE


class SignalStack(ctypes.Structure):
    """Linux' `stack_t`, as in sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """The calling thread's. Linux only."""
    found = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """The calling thread has the same one afterwards, or none where it is too small by then."""
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        choose = ctypes.CDLL(None).sigaltstack
        if choose(ctypes.byref(before), None):
            choose(ctypes.byref(SignalStack(flags=DISABLED)), None)
