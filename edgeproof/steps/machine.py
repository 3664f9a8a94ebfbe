"""Which steps share a machine: one that is alone waits for all others, and they for it.

Locks of the system in a folder of this machine, whoever runs steps there: two runs, or several
workers of a cluster. What is killed leaves none.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SHARED = Path("/tmp")
CPU_INFO = Path("/proc/cpuinfo")
SECONDS = 0.1  # between looks
MEGABYTE = 10**6


def where() -> str:
    """This process, as people find it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def cores() -> int:
    """The processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_mb() -> int | None:
    """The machine's memory in 10⁶ bytes; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEGABYTE
    except (ValueError, OSError):
        return None


def processor() -> str:
    """The processor's name: Linux has it in a file, elsewhere `platform` must do."""
    try:
        lines = CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_kind() -> str:
    """What memory and speed of a program depend on, alike on machines of one kind."""
    memory = memory_mb()
    gigabytes = "" if memory is None else f", {round(memory / 1000)} GB"
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {processor()}, {cores()} cores{gigabytes}"


@contextlib.contextmanager
def turn(*, alone: bool, stopped: Callable[[], bool]) -> Iterator[None]:
    """A step's time on this machine; who is `stopped` waits no longer, and goes in.

    Who is alone holds the door while others leave the room, so that he is not passed by. On Windows
    nobody waits.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    def locked(name: str, how: int) -> int:
        handle = os.open(place / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        while not stopped():
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, how | fcntl.LOCK_NB)
                break
            time.sleep(SECONDS)
        return handle

    place = _place()
    door = locked("door", fcntl.LOCK_EX)
    try:
        room = locked("room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    finally:
        os.close(door)
    try:
        yield
    finally:
        os.close(room)


def _place() -> Path:
    """A folder of this user's and nobody else's."""
    for parent in (SHARED, Path(tempfile.gettempdir())):
        folder = parent / f"edgeproof-steps-{_user()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == _user():
                return folder
    return Path(tempfile.mkdtemp(prefix="edgeproof-steps-"))


def _user() -> int:
    if sys.platform == "win32":
        return 0
    return os.getuid()
