"""Commands in awkward places: no stderr, no permission, narrow or colourless terminals, spaces.

`test_ending`, `test_before_work`, `test_own_files` and `test_without_cache` have the other kinds.
"""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.table import Table

from edgeproof import interrupted
from edgeproof.cli import main
from edgeproof.display import NARROWEST, PLAIN_WIDTH, table_console
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_is_closed_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    model = make_checkpoint(tmp_path / "m")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(SystemExit) as ended:
        main(["gguf", "-m", str(model), "-d", "f16", "-o", str(tmp_path / "out")])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("gguf", "-m", "gone", "-d", "f16"),
        ("export", "-m", "gone", "-o", "{place}/below"),
        ("compare", "a", "b", "--json", "{place}/x.json"),
        ("release", "build", "gone"),
        ("imatrix", "--checkpoint", "gone", "-o", "{place}/x.gguf"),
    ],
)
def test_a_folder_that_may_not_be_changed_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    done = run(*(text.format(place=tmp_path) for text in arguments))
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.endswith(f"cannot be written ({tmp_path} may not be changed)")


def test_an_artifact_is_as_private_as_the_umask_says(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "m")
    before = os.umask(0o077)
    try:
        assert run("gguf", "-m", model, "-d", "f16", "-o", tmp_path / "out").exit_code == 0
    finally:
        os.umask(before)
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    ("columns", "width"),
    [("", PLAIN_WIDTH), ("wide", PLAIN_WIDTH), ("100", 100), ("0", NARROWEST), ("9" * 30, 10_000)],
)
def test_tables_are_as_wide_as_columns_says(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert table_console().width == width


@pytest.mark.parametrize(
    ("name", "value", "coloured"),
    [("NO_COLOR", "1", False), ("TERM", "dumb", False), ("TERM", "xterm-256color", True)],
)
def test_colours_are_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, coloured: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for unset in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(unset, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", shown := Terminal())
    table = Table("metric")
    table.add_row("[red]bad[/red]")
    table_console().print(table)
    assert ("\x1b[31m" in shown.getvalue()) is coloured
    assert "bad" in shown.getvalue()


def test_examples_of_a_help_are_on_lines_of_their_own() -> None:
    for command in ("build", "sign", "verify", "publish"):
        lines = [line.strip() for line in run("release", command, "--help").output.splitlines()]
        begin = [line for line in lines if line.startswith(("python -m export.release", "openssl"))]
        assert begin, command
        assert all(line.count("python -m export.release") <= 1 for line in lines)


def test_make_takes_folders_with_spaces() -> None:
    asked = ("OUT=my files", "PLAN=my plan.toml", "DIST=my dist", "VERSION=1 0")
    for target in ("export-all", "release"):
        done = subprocess.run(
            ["make", "--dry-run", "--always-make", target, *asked, f"VENV={sys.prefix}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            words = [text.partition("=")[2] for text in asked if text.partition("=")[2] in line]
            assert all(f'"{word}' in line or f'{word}"' in line for word in words), line


def test_an_interruption_while_modules_are_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted.quietly()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        monkeypatch.setattr(sys, "argv", ["-m", "export.gguf"])
        interrupted.quietly()
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGINT)
        assert ended.value.code == 130
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
        interrupted.quietly()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
