"""One writer per target: a second process waits, then finds the first one's work."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from edgeproof.files.atomic import storage_errors
from edgeproof.files.cache import LOCKS, cache_folder, usable

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold the lock of `target` on this machine; `kill -9` frees it.

    The lock is a file of the user's cache, so that nothing but artifacts lies beside artifacts.
    Where the cache cannot be written it is this process's only.

    Raises:
        InputError: the disk has become full.
    """
    from filelock import FileLock, Timeout

    key = hashlib.sha256(os.fsencode(os.path.realpath(target))).hexdigest()
    path = usable(cache_folder() / LOCKS / f"{key}.lock")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: another run is writing it; waiting", target)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
