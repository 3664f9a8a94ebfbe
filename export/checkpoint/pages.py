"""Give memory-mapped pages back to the system, so that peak memory does not grow with a file."""

from __future__ import annotations

import mmap
import sys


def release_pages(mapped: mmap.mmap, begin: int, end: int) -> None:
    """Bytes `begin` to `end` of a read-only map are not needed now; they can still be read.

    On Windows nothing is done: there the system trims a process's working set.
    """
    if sys.platform != "win32":
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            mapped.madvise(mmap.MADV_DONTNEED, start, end - start)
