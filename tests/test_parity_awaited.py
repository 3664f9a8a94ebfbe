"""What is compared while a runtime is still being installed, and how that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproof.artifact import Artifact
from edgeproof.verdicts import Verdict
from runtimes.parity.awaited import Awaited, Patient, in_rounds
from runtimes.parity.stages import Stages
from tests.parity_results import entry

ROOT = Path(__file__).parent.parent


def _of(form: str) -> Artifact:
    artifact = entry(form, Verdict.PASS).artifact
    variant = replace(artifact.manifest.variant, format=form)
    return replace(artifact, manifest=replace(artifact.manifest, variant=variant))


def test_awaited_formats_come_last_in_their_order(tmp_path: Path) -> None:
    artifacts = [_of(form) for form in ("gguf", "onnx", "gguf", "mlc", "onnx")]
    assert Awaited({"gguf": tmp_path / "exit"}).turns(artifacts) == [1, 3, 4, 0, 2]
    assert Awaited().turns(artifacts) == [0, 1, 2, 3, 4]


def test_they_wait_until_it_is_installed(tmp_path: Path) -> None:
    told = tmp_path / "exit"
    awaited = Awaited({"gguf": told})
    assert awaited.lacking(_of("onnx"), Stages()) is None
    installing = threading.Timer(0.3, lambda: told.write_text("0\n"))
    installing.start()
    assert awaited.lacking(_of("gguf"), Stages()) is None
    assert told.exists()
    assert awaited.lacking(_of("gguf"), Stages()) is None


def test_who_would_wait_gives_way_to_the_others(tmp_path: Path) -> None:
    """Of two models, what needs no awaited runtime is compared first; then one after the other."""
    told = tmp_path / "exit"
    awaited, seen = Awaited({"gguf": told}), []

    def compared(model: str, forms: tuple[str, ...]) -> Patient[str]:
        artifacts = [_of(form) for form in forms]
        for turn in awaited.turns(artifacts):
            if awaited.waits(artifacts[turn]):
                yield lambda: seen.append(f"{model} rests")
                told.write_text("0\n")
            assert awaited.lacking(artifacts[turn], Stages()) is None
            seen.append(f"{model} {forms[turn]}")
        return model

    forms = ("gguf", "onnx")
    both = in_rounds([compared("a", forms), compared("b", forms), compared("c", ("onnx",))])
    assert list(both) == [(2, "c"), (0, "a"), (1, "b")]
    first = ["a onnx", "a rests", "b onnx", "b rests", "c onnx"]
    assert seen == [*first, "a gguf", "b gguf"]
    told.unlink()
    seen.clear()
    assert list(in_rounds([compared("a", forms)])) == [(0, "a")]
    assert seen == ["a onnx", "a gguf"]


@pytest.mark.parametrize("content", [b"2\n", b"", b"\x86\xff", b"0 or so"])
def test_what_could_not_be_installed_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "exit").write_bytes(content)
    lacking = Awaited({"gguf": tmp_path / "exit"}).lacking(_of("gguf"), Stages())
    assert "not run: its runtime could not be installed" in (lacking or "")


def test_a_folder_in_the_file_s_place_is_named(tmp_path: Path) -> None:
    lacking = Awaited({"gguf": tmp_path}).lacking(_of("gguf"), Stages())
    assert f"{tmp_path.name} cannot be read" in (lacking or "")


def _beside(tmp_path: Path, making: str, comparing: str) -> subprocess.Popen[str]:
    """Both are Python texts; the first stands in for make."""
    make = tmp_path / "make"
    make.write_text(f"#!{sys.executable}\n{making}\n")
    make.chmod(0o755)
    command = [sys.executable, "-m", "tools.beside", str(tmp_path / "exit"), "target", "--"]
    return subprocess.Popen(
        [*command, sys.executable, "-c", comparing],
        cwd=ROOT,
        env={**os.environ, "MAKE": str(make)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="of the Makefile, which needs a POSIX shell")
@pytest.mark.parametrize(
    ("making", "comparing", "code"), [(0, 0, 0), (0, 1, 1), (2, 0, 2), (2, 1, 1)]
)
def test_both_exit_codes_count(tmp_path: Path, making: int, comparing: int, code: int) -> None:
    told = tmp_path / "exit"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(told)!r}).exists(): time.sleep(.01)"
    process = _beside(
        tmp_path, f"print('no compiler')\nraise SystemExit({making})", f"{waits}\nexit({comparing})"
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.read_text() == f"{making}\n"
    assert ("no compiler" in errors) == bool(making)


@pytest.mark.skipif(os.name == "nt", reason="of the Makefile, which needs a POSIX shell")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_leaves_no_compiler_behind(tmp_path: Path, number: int) -> None:
    pid, ready = tmp_path / "pid", tmp_path / "ready"
    making = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    comparing = (
        f"import pathlib, time\nwhile not pathlib.Path({str(pid)!r}).exists(): time.sleep(.01)\n"
        f"pathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"
    )
    process = _beside(tmp_path, making, comparing)
    while not ready.exists():
        time.sleep(0.01)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.skipif(os.name == "nt", reason="of the Makefile, which needs a POSIX shell")
def test_a_mistyped_no_recovers_nothing() -> None:
    done = subprocess.run(
        ["make", "-n", "export-all", "RECOVER=on"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "RECOVER=on: say yes or no" in done.stderr
