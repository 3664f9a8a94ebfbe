"""Write files and folders so that `kill -9` at any moment leaves the old one or the new one.

One exception: a folder that exists is replaced in two steps where no system call exchanges folders
(outside Linux, and on some of its file systems). Killed between them, none is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeproof.errors import InputError

AT_FDCWD = -100
RENAME_EXCHANGE = 2
TEMPORARY = ".edgeproof-tmp-"


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into an `InputError` that names the target."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: the disk is full; free some space and run again") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.ENOTDIR):
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Replace one file atomically and durably."""
    with storage_errors(path), _parents(path):
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as file:  # unlike tempfile's, as the umask has it
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `target`; it becomes `target` when the block succeeds.

    The caller has fsynced the files in it. Whatever the block raises removes it, and the folders
    above it that were made for it. Left-overs of killed runs for the same target are removed first.
    """
    prefix = f"{TEMPORARY}{target.name}-"
    with storage_errors(target), _parents(target):
        for stale in target.parent.glob(f"{prefix}*"):
            # What follows the last hyphen is ours: `q4_0-` must not find `q4_0-pure-`.
            if "-" not in stale.name.removeprefix(prefix):
                shutil.rmtree(stale, ignore_errors=True)
        temporary = target.with_name(f"{prefix}{secrets.token_hex(8)}")
        try:
            temporary.mkdir(parents=True)  # another run's failure may have removed them
            yield temporary
            for folder, _, _ in os.walk(temporary):
                sync_folder(Path(folder))
            replace_folder(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(target.parent)
        shutil.rmtree(temporary, ignore_errors=True)  # after an exchange it holds the old content


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Have the folders above a path; where the block raises, those that were made go if empty."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None, prefix: str = TEMPORARY) -> Iterator[Path]:
    """Yield an empty folder that goes with the block, below `parent` or where the system has them.

    Unlike tempfile's, it goes also where a signal comes in the moment in which it is made.
    """
    folder = (parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable (POSIX; elsewhere a no-op)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(new: Path, target: Path) -> None:
    """Put a folder in the place of another, in one step where the system can.

    `new` may have the old content afterwards.
    """
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{target.name}-", dir=target.parent))
        target.rename(old / "old")
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(new: Path, target: Path) -> bool:
    """Swap two folders in one step where the kernel can (Linux renameat2)."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    result = renameat2(
        AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(target), ctypes.c_uint(RENAME_EXCHANGE)
    )
    return bool(result == 0)
