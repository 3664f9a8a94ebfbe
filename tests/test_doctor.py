"""`edgeproof doctor`: what is there with its version, what is missing with what brings it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeproof.cli import main
from edgeproof.errors import InputError
from runtimes.adapter import OptionalModule
from runtimes.doctor import __main__ as doctor
from runtimes.doctor.checks import Check, checks
from runtimes.formats import OURS


def looked_for(name: str) -> dict[str, Any]:
    """One check, in this process."""
    done = CliRunner().invoke(main, ["doctor", "--look", name])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["found"] is None) != (found["missing"] is None)
    return found


def only(monkeypatch: pytest.MonkeyPatch, *wanted: Check) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: {check.name: check for check in wanted})


def test_every_runtime_has_a_line() -> None:
    names = set(checks())
    for reader in OURS.values():
        for adapter in (reader.adapter, *reader.others.values()):
            assert " + ".join(adapter.packages) in names


@pytest.mark.parametrize("name", ["processors", "cache", "llama_cpp", "releasing"])
def test_what_is_there_is_named(name: str) -> None:
    assert looked_for(name)["found"]


def test_what_is_missing_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert 'pip install "edgeproof[llamacpp]"' in looked_for("llama_cpp")["missing"]
    # The cache of this test is empty, and looking fetches nothing.
    assert "python -m runtimes.browser" in looked_for("npm packages")["missing"]


def test_a_cache_that_cannot_be_written_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "file"))
    assert "file" in looked_for("cache")["missing"]


def test_each_is_looked_for_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    known = checks()["processors"]
    unknown = Check("nothing", "no use", known.look)  # the other process does not know it
    only(monkeypatch, known, unknown)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0, done.output
    first, second = done.output.splitlines()
    assert first.startswith("ok processors")
    assert second.startswith("-- nothing")
    assert "does not load: error: --look 'nothing'" in second


def test_a_library_that_hangs_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    only(monkeypatch, checks()["processors"])
    monkeypatch.setattr(doctor.subprocess, "run", hang)
    done = CliRunner().invoke(main, ["doctor", "--json"])
    (found,) = json.loads(done.stdout)
    assert found["found"] is None
    assert "did not load within" in found["missing"]


def test_a_damaged_installation_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: OptionalModule) -> None:
        raise OSError("libomp.so.5: cannot open shared object file")

    monkeypatch.setattr(OptionalModule, "load", broken)
    assert "libomp" in looked_for("llama_cpp")["missing"]


def test_an_unknown_check_is_one_line() -> None:
    done = CliRunner().invoke(main, ["doctor", "--look", "x"])
    assert done.exit_code == InputError.exit_code
    assert len(done.output.splitlines()) == 1
