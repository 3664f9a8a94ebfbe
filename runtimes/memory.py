"""Memory that was freed goes back to the operating system."""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """For the whole process: blocks of a megabyte or more go back as soon as they are freed.

    glibc raises that limit to 32 MB by itself and so keeps hundreds of megabytes. Other C
    libraries are left as they are.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
