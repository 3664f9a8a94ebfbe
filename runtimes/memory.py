"""How much memory is left; what was freed goes back to the operating system."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

MEMORY_INFO = Path("/proc/meminfo")
OWN_GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
KIBI = 1024
# malloc.h of glibc
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def return_large_blocks(least: int = LARGE_BYTES) -> None:
    """For the whole process: blocks of `least` bytes or more go back as soon as they are freed.

    glibc raises that limit by itself, and so keeps hundreds of megabytes. It takes none above 32
    MB. Other C libraries are left as they are.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, least)


def available_memory() -> int | None:
    """Bytes that this process can still take, of the machine's and of its control group's memory.

    None where the system does not tell: only Linux does, in /proc/meminfo and cgroupfs. Source:
    https://docs.kernel.org/filesystems/proc.html (MemAvailable),
    https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current, memory.stat).
    """
    found = [*_machines(), *_groups()]
    return min(found, default=None)


def _machines() -> Iterator[int]:
    with contextlib.suppress(OSError, KeyError, ValueError):
        yield _numbers(MEMORY_INFO.read_text("utf-8").replace(":", ""))["MemAvailable"] * KIBI


def _groups() -> Iterator[int]:
    """What is left below each limit on the way up from the process's own group."""
    try:
        lines = OWN_GROUP.read_text("utf-8").splitlines()
    except OSError:
        return
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return
    folder = GROUPS / own
    for group in (folder, *folder.parents):
        with contextlib.suppress(OSError, KeyError, ValueError):
            limit = int((group / "memory.max").read_text("utf-8"))  # or "max"
            used = int((group / "memory.current").read_text("utf-8"))
            # Pages of files that are not in use count as used, and are given back first.
            files = _numbers((group / "memory.stat").read_text("utf-8"))["inactive_file"]
            yield max(0, limit - used + files)
        if group == GROUPS:
            break


def _numbers(text: str) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) > 1}
