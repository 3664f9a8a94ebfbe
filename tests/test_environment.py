from __future__ import annotations

import shutil
import sys
import venv
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from export import environment
from export.environment import BIN, READY, isolated_environment


@pytest.fixture(autouse=True)
def _quick_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments that borrow this one's pip: ensurepip takes ten seconds."""

    def create(folder: Path, clear: bool, with_pip: bool) -> None:
        assert clear
        assert with_pip
        shutil.rmtree(folder, ignore_errors=True)
        python = folder / BIN / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)

    monkeypatch.setattr(venv, "create", create)


def empty_pins(folder: Path) -> Path:
    """Pins that pip satisfies without a network."""
    path = folder / "requirements.txt"
    path.write_text("# nothing\n")
    return path


def test_an_environment_is_made_once_and_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    pins = empty_pins(tmp_path)
    programs = isolated_environment("empty", pins, said.append)
    assert (programs / "python").exists()
    assert isolated_environment("empty", pins, said.append) == programs
    assert len(said) == 1
    (programs.parent / READY).unlink()  # as after a kill
    (programs.parent / "half").touch()
    isolated_environment("empty", pins, said.append)
    assert len(said) == 2
    assert not (programs.parent / "half").exists()


def test_what_pip_cannot_install_is_one_line_and_leaves_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    pins = tmp_path / "requirements.txt"
    pins.write_text("edgeproof-no-such-package==1.0\n")
    for _ in range(2):
        with pytest.raises(InputError, match="edgeproof-no-such-package") as caught:
            isolated_environment("broken", pins, lambda text: None)
        assert "\n" not in str(caught.value)


def test_other_pins_are_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(folder: Path, requirements: Path) -> None:
        folder.mkdir()
        (folder / READY).touch()
        made.append(folder)

    monkeypatch.setattr(environment, "_make", make)
    pins = empty_pins(tmp_path)
    isolated_environment("tool", pins, lambda text: None)
    pins.write_text("# other\n")
    isolated_environment("tool", pins, lambda text: None)
    assert len(set(made)) == 2
