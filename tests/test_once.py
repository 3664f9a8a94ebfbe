"""What is kept in the cache is made by one process, completely, and found by the others."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from edgeproof.files.lock import exclusive
from edgeproof.files.once import once, once_folder

# Marks each making by a file of its own, and takes its time.
SLOW = """
import sys, tempfile, time
from pathlib import Path
from edgeproof.files.once import once_folder

target, made = map(Path, sys.argv[1:])
def fill(folder):
    tempfile.mkstemp(dir=made)
    (folder / "a").write_text("half")
    time.sleep(0.5)
    (folder / "a").write_text("whole")
print((once_folder(target, fill) / "a").read_text())
"""


def test_many_processes_make_it_once_and_all_see_it_whole(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    command = [sys.executable, "-c", SLOW, str(tmp_path / "cache" / "x"), str(made)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate()[0] for run in runs] == ["whole\n"] * 3
    assert len(list(made.iterdir())) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["x"]


def test_what_is_there_is_found_without_its_lock(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.mkdir()
    found: list[Path] = []
    with exclusive(target):
        reader = threading.Thread(
            target=lambda: found.append(once_folder(target, lambda folder: None)), daemon=True
        )
        reader.start()
        reader.join(timeout=10)
        assert found == [target]


def test_it_looks_again_once_it_has_the_lock(tmp_path: Path) -> None:
    looks = iter([None, "made meanwhile"])
    assert once(tmp_path / "x", lambda: next(looks), lambda: "made again") == "made meanwhile"


def test_what_fails_leaves_nothing_and_is_made_the_next_time(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "x"

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise InputError("no network")

    with pytest.raises(InputError, match="no network"):
        once_folder(target, fail)
    assert not list(tmp_path.rglob("x*"))
    once_folder(target, lambda folder: (folder / "whole").touch())
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("dama")

    def find() -> str | None:
        text = target.read_text()
        return text if text == "whole" else None

    def make() -> str:
        target.write_text("whole")
        return "whole"

    assert once(target, find, make) == "whole"
    assert target.read_text() == "whole"
