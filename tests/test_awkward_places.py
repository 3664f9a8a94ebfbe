"""Commands in awkward places: closed streams, narrow or colourless terminals, the first moments.

`test_awkward_commands` has the table of all kinds.
"""

from __future__ import annotations

import io
import os
import signal
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
