"""Every command ends with a documented exit code and one line, and leaves nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgeproof.cli import main
from edgeproof.command import EdgeproofCommand
from edgeproof.errors import GateError, InputError
from edgeproof.files.atomic import atomic_folder
from tests.test_every_command import commands

ROOT = Path(__file__).parent.parent
RAISED = {
    "ours": (InputError("a.toml: wrong"), 2, "error: a.toml: wrong"),
    "names of strangers": (InputError("a\nb\x1b[2J: ≤"), 2, r"error: a\nb\x1b[2J: ≤"),
    "gate": (GateError("too far"), 1, "error: too far"),
    "system": (PermissionError(13, "Permission denied", "x"), 2, "error: x: Permission denied"),
    "library": (OSError("no network"), 2, "error: no network"),
    "memory": (MemoryError(), 2, "error: there is not enough memory"),
    "usage": (
        click.UsageError("No such thing."),
        2,
        "error: No such thing; command --help tells more",
    ),
    "pipe": (BrokenPipeError(), 141, ""),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted: all of it is there"),
}


def ends(error: BaseException, *arguments: str) -> Result:
    """A command that raises."""

    @click.command(cls=EdgeproofCommand, kept="all of it is there")
    def command() -> None:
        raise error

    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize("kind", RAISED)
def test_what_is_raised_is_one_line_and_an_exit_code(kind: str) -> None:
    error, code, line = RAISED[kind]
    done = ends(error)
    assert (done.exit_code, done.output.strip()) == (code, line)


def test_what_was_not_foreseen_asks_for_a_report_with_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = ends(KeyError("bits"))
    assert done.exit_code == 70
    (line,) = done.output.splitlines()
    (file,) = tmp_path.iterdir()
    assert line.startswith("error: KeyError: 'bits': this is a fault of edgeproof")
    assert line.endswith(str(file))
    assert "Traceback" in file.read_text()
    shown = ends(KeyError("bits"), "--debug").output
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("error: KeyError")
    assert [*tmp_path.iterdir()] == [file]


def test_errors_and_ends_are_events_for_machines() -> None:
    code = (
        "from tests.test_ending import ends; print(ends(KeyboardInterrupt(), '--log-json').stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    event = json.loads(done.stdout)
    assert (event["event"], event["exit_code"]) == ("interrupted", 130)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gguf",), "Missing option '--dtype'"),
        (("gguf", "--foo"), "No such option"),
        (("nope",), "No such command 'nope'"),
        (("release", "nope"), "No such command 'nope'"),
        (("chat", "x", "--seed", "-1"), "Invalid value for '--seed'"),
    ],
)
def test_usage_errors_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert line.endswith("--help tells more")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_what_is_half_written_even_if_it_comes_twice(
    tmp_path: Path, number: int
) -> None:
    @click.command(cls=EdgeproofCommand)
    def command() -> None:
        try:
            with atomic_folder(tmp_path / "target") as folder:
                (folder / "half").write_text("x")
                os.kill(os.getpid(), number)
                threading.Event().wait(10)
        finally:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    done = CliRunner().invoke(command)
    assert done.exit_code == 128 + number
    assert done.output.startswith("interrupted: nothing half-written")
    assert [*tmp_path.iterdir()] == []
    assert signal.getsignal(number) == before


def test_a_signal_that_comes_where_nothing_can_be_raised_comes_again() -> None:
    class Last:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    @click.command(cls=EdgeproofCommand)
    def command() -> None:
        for _ in range(3):
            Last()
        threading.Event().wait(10)
        click.echo("nobody ended it")

    done = CliRunner().invoke(command)
    assert (done.exit_code, done.output.count("\n")) == (143, 1)
    assert done.output.startswith("interrupted")


def test_a_command_that_is_killed_leaves_no_process_behind() -> None:
    begun = (
        "import time; from edgeproof.processes import end_with_beginner; end_with_beginner();"
        "print('here', flush=True); time.sleep(600)"
    )
    code = (
        f"import sys; from edgeproof.processes import run; run([sys.executable, '-c', {begun!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"here\n"
        killed.kill()
        assert killed.stdout.read() == b""  # the pipe ends only when the other one is gone


def test_a_full_disk_under_stdout_is_one_line_and_a_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "edgeproof", "--help"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: [Errno 28] No space left on device"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_one_line_tells_of_the_end_of_a_command_and_of_those_that_it_has_begun() -> None:
    begun = (
        "import time, click; from edgeproof.command import EdgeproofCommand\n"
        "@click.command(cls=EdgeproofCommand)\n"
        "def main(): print('here', flush=True); time.sleep(600)\n"
        "main([])"
    )
    code = (
        "import sys, click; from edgeproof.command import EdgeproofCommand\n"
        "from edgeproof.processes import run\n"
        "@click.command(cls=EdgeproofCommand, kept='all of it is there')\n"
        f"def main(): run([sys.executable, '-c', {begun!r}])\n"
        "main([])"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == b"here\n"
        outer.terminate()
        _, errors = outer.communicate()
    assert (outer.returncode, errors) == (143, b"interrupted: all of it is there\n")


def test_characters_that_an_encoding_has_not_are_escaped() -> None:
    @click.command(cls=EdgeproofCommand)
    def command() -> None:
        click.echo("KL ≤ 0.01 – \udcff")

    for encoding in ("latin-1", "cp1252", "utf-8"):
        done = CliRunner(charset=encoding).invoke(command)
        assert done.exit_code == 0
        assert b"0.01" in done.stdout_bytes
    assert done.output == "KL ≤ 0.01 – \\udcff\n"


def test_every_command_is_quiet_about_a_closed_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, _ in commands(main):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as closed, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", closed)
            with pytest.raises(SystemExit) as ended:
                main([*words, "--help"])
        assert ended.value.code == 141, words
    assert capsys.readouterr().err == ""
