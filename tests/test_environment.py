"""Environments on demand: made once, whole, and of nothing but the files that the pins name."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from export import environment
from export.environment import BIN, READY, isolated_environment
from export.onnx.traced.environment import CUDA_PINS, PINS
from tests.consumers.environment import GENAI_PINS, S3_PINS

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^([\w.-]+)==(\S+?)(?:\s*;.*)?\s*\\?$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _quick_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments that are run by this one's pip: ensurepip takes ten seconds."""

    def create(folder: Path, clear: bool, with_pip: bool) -> None:
        assert clear
        assert with_pip
        shutil.rmtree(folder, ignore_errors=True)
        venv.EnvBuilder(symlinks=True).create(folder / "own")
        own, python = folder / "own" / BIN / "python", folder / BIN / "python"
        python.parent.mkdir()
        # What comes in as `python -m pip …`.
        run = f'exec "{sys.executable}" -m pip --python "{own}" "$@"'
        python.write_text(f"#!/bin/sh\nshift 2\n{run}\n")
        python.chmod(0o755)

    monkeypatch.setattr(venv, "create", create)


def make_wheel(folder: Path, name: str, needs: Sequence[str] = ()) -> str:
    """A wheel of version 1.0 with nothing in it; returns its pin."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", head + "".join(f"Requires-Dist: {n}\n" for n in needs))
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where pip looks."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


def installed(programs: Path) -> set[str]:
    found = programs.parent.glob("own/lib/*/site-packages/*.dist-info")
    return {path.name.partition("-")[0] for path in found}


def test_a_file_of_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(make_wheel(index, "alpha"))
    assert installed(isolated_environment("good", pins, print)) == {"alpha"}
    make_wheel(index, "alpha", ["beta; extra == 'other-bytes'"])
    with pytest.raises(InputError, match=r"(?i)pins.txt \(.*hash") as caught:
        isolated_environment("bad", pins, print)
    assert "\n" not in str(caught.value)


def test_nothing_comes_in_without_a_pin(index: Path, tmp_path: Path) -> None:
    """A dependency that an index offers and no pin names is not installed, but asked for."""
    alpha, beta, pins = (
        make_wheel(index, "alpha", ["beta"]),
        make_wheel(index, "beta"),
        tmp_path / "p",
    )
    pins.write_text(alpha)
    for _ in range(2):
        with pytest.raises(InputError, match=r"not complete: alpha 1\.0 requires beta"):
            isolated_environment("incomplete", pins, print)
    pins.write_text("alpha==1.0\n")
    with pytest.raises(InputError, match=r"(?i)hash"):
        isolated_environment("unhashed", pins, print)
    pins.write_text(alpha + beta)
    assert installed(isolated_environment("complete", pins, print)) == {"alpha", "beta"}


@pytest.mark.parametrize(("needs", "expected"), [([], {"alpha"}), (["beta"], {"alpha", "beta"})])
def test_what_only_some_builds_need_is_installed_with_those(
    index: Path, tmp_path: Path, needs: list[str], expected: set[str]
) -> None:
    pins, more = tmp_path / "pins.txt", tmp_path / "more.txt"
    pins.write_text(make_wheel(index, "alpha", needs))
    more.write_text(make_wheel(index, "beta"))
    assert installed(isolated_environment("tool", pins, print, else_needed=more)) == expected


@pytest.mark.parametrize("file", [PINS, CUDA_PINS, GENAI_PINS, S3_PINS], ids=lambda path: path.name)
def test_every_pin_of_ours_has_its_hashes(file: Path) -> None:
    text = file.read_text()
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(blocks) > 10
    for block in blocks:
        assert PIN.match(block.splitlines()[0]), block
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", block), block


@pytest.mark.parametrize("file", [PINS, GENAI_PINS, S3_PINS], ids=lambda path: path.name)
def test_the_hashed_pins_are_those_that_were_asked_for(file: Path) -> None:
    pinned = set(PIN.findall(file.read_text()))
    asked = PIN.findall(file.with_suffix(".in").read_text())
    assert asked
    assert {(name.lower().replace("_", "-"), version) for name, version in asked} <= pinned


@pytest.mark.parametrize("lock", ["runtimes/browser/web", "tests/transformersjs"])
def test_every_npm_package_has_its_hash(lock: str) -> None:
    packages = json.loads((ROOT / lock / "package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-"), name


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
    pins.write_text(f"edgeproof-no-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    for _ in range(2):
        with pytest.raises(InputError, match="edgeproof-no-such-package") as caught:
            isolated_environment("broken", pins, lambda text: None)
        assert "\n" not in str(caught.value)


def test_other_pins_are_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(folder: Path, files: Sequence[Path]) -> None:
        folder.mkdir()
        (folder / READY).touch()
        made.append(folder)

    monkeypatch.setattr(environment, "_make", make)
    pins = empty_pins(tmp_path)
    isolated_environment("tool", pins, lambda text: None)
    pins.write_text("# other\n")
    isolated_environment("tool", pins, lambda text: None)
    assert len(set(made)) == 2
