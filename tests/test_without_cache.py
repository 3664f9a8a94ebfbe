"""The cache is help, never a condition: where it cannot be written, commands work without it."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproof.cli import main
from edgeproof.files.atomic import atomic_folder, write_atomic
from edgeproof.files.cache import _stand_in, cache_folder, keep_file, kept_file, usable
from edgeproof.files.hashing import file_sha256, remembered_sha256
from edgeproof.files.lock import exclusive
from edgeproof.files.once import once_folder
from export.sources.checkpoint_cache import cached
from tests.tiny import make_checkpoint

UNUSABLE = ("file", "file/below", "x" * 300, "link")


@pytest.fixture(params=UNUSABLE, ids=["a file", "below a file", "a name too long", "a dead link"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Path:
    """A cache that nobody can write, root neither."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "further")
    cache = tmp_path / request.param
    monkeypatch.setenv("EDGEPROOF_CACHE", str(cache))
    return cache


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def test_commands_work_and_say_it_in_a_line(
    unusable: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, out = make_checkpoint(tmp_path / "m"), tmp_path / "out"
    command = ("gguf", "-m", model, "-d", "f16", "-o", out)
    done = run(*command)
    assert done.exit_code == 0, done.output
    (line,) = [item.getMessage() for item in caplog.records if item.levelno >= logging.WARNING]
    assert line.startswith(f"{unusable}: cannot be written (")
    assert line.endswith("EDGEPROOF_CACHE names another folder")
    assert "unchanged, reused" in run(*command).output
    for other in (("status", out), ("clean", out, "--stale"), ("status", "--cache")):
        done = run(*other)
        assert done.exit_code == 0, done.output
    assert len(caplog.records) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "m", "out"]


def test_what_has_to_lie_somewhere_lies_in_a_stand_in(unusable: Path, tmp_path: Path) -> None:
    folder = once_folder(cache_folder() / "web" / "1", lambda new: (new / "a").write_text("x"))
    assert (folder / "a").read_text() == "x"
    assert not folder.is_relative_to(tmp_path)
    assert once_folder(cache_folder() / "web" / "1", lambda new: pytest.fail("again")) == folder
    (tmp_path / "given").write_text("matrix")
    assert kept_file(keep_file(tmp_path / "given", "files"), "files").read_text() == "matrix"

    def write(new: Path) -> str:
        (new / "config.json").write_text("{}")
        return "Tiny"

    made = cached("stem", ["recipe"], write)
    assert (made.name, (made.path / "config.json").read_text()) == ("Tiny", "{}")
    assert cached("stem", ["recipe"], lambda new: pytest.fail("again")) == made
    with exclusive(tmp_path / "target"):
        pass


def test_what_is_in_a_cache_that_is_read_only_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = once_folder(cache_folder() / "web" / "1", lambda new: None)
    digest = keep_file(make_checkpoint(tmp_path / "m") / "config.json", "files")
    _stand_in.cache_clear()

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert once_folder(cache_folder() / "web" / "1", lambda new: pytest.fail("again")) == there
    assert kept_file(digest, "files").is_relative_to(cache_folder())


def test_a_disk_that_becomes_full_costs_what_would_be_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights"
    path.write_text("x")
    assert usable(cache_folder()) == cache_folder()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        digest = remembered_sha256(path, cache_folder() / "digests")
    assert digest == file_sha256(path)
    (record,) = caplog.records
    assert "the disk is full" in record.getMessage()
    assert not [item for item in cache_folder().rglob("*") if item.is_file()]


@pytest.mark.parametrize("damage", [b"", b"[]", b"[" * 100_000, b'{"key": 3, "sha256": 4}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, damage: bytes) -> None:
    path, memory = tmp_path / "weights", tmp_path / "digests"
    path.write_text("x")
    digest = remembered_sha256(path, memory)
    (record,) = memory.iterdir()
    whole = record.read_bytes()
    record.write_bytes(damage)
    assert remembered_sha256(path, memory) == digest
    record.write_bytes(whole.replace(digest.encode(), b"not a digest"))
    assert remembered_sha256(path, memory) == digest


def test_the_stand_in_goes_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code = "from edgeproof.files.cache import *; print(usable(cache_folder() / 'x').parent)"
    environment = {**os.environ, "EDGEPROOF_CACHE": str(tmp_path / "file")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert not Path(done.stdout.strip()).exists()
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("umask", "folder", "file"), [(0o077, 0o700, 0o600), (0o022, 0o755, 0o644)]
)
def test_what_is_written_may_be_read_by_whom_the_umask_says(
    tmp_path: Path, umask: int, folder: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "folder") as new:
            write_atomic(new / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == folder
    assert stat.S_IMODE((tmp_path / "folder" / "a").stat().st_mode) == file
