"""Memory that was freed, given back to the operating system."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Give it back where the C library is glibc, which keeps hundreds of megabytes for itself."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
