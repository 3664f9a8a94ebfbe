"""What a run tells while it runs: what it is at, what that took, and about what is left."""

from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Console
from rich.text import Text

from benchmarks.time_to_verdict import phases, table
from runtimes.parity import stages as module
from runtimes.parity.live import Whole, shown
from runtimes.parity.stages import Spent, Stages, timed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which tests set; CPU seconds are twice that."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_cpu_seconds", lambda: 2 * now[0])
    return now


def _run(stages: Stages, clock: list[float], label: str, seconds: float) -> None:
    with stages.artifact(label) as tell:
        with stages.phase("text", 2) as advance:
            advance()
            clock[0] += seconds
        tell("PASS, mean KL 0.010")


def test_a_line_says_what_an_artifact_took_and_about_what_is_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    stages = Stages()
    stages.expect(["gguf q8_0", "gguf q4_0", "gguf q4_1"])
    with stages.subject("reference"), stages.phase("load"):
        clock[0] += 3
    _run(stages, clock, "gguf q8_0", 60)
    _run(stages, clock, "gguf q4_0", 90)
    _run(stages, clock, "gguf q4_1", 30)
    assert capsys.readouterr().err.splitlines() == [
        "  reference: 3 s (load 3)",
        "  [1/3] gguf q8_0: PASS, mean KL 0.010; 60 s (text 60); about 2 min left",
        "  [2/3] gguf q4_0: PASS, mean KL 0.010; 90 s (text 90); about 80 s left",
        "  [3/3] gguf q4_1: PASS, mean KL 0.010; 30 s (text 30)",
    ]
    assert stages.spent[1] == Spent("gguf q8_0", "text", 60.0, 120.0)


def test_what_tells_of_itself_is_only_logged(
    clock: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "runtimes"), pytest.raises(OSError, match="full"):
        _end_badly(clock)
    (record,) = caplog.records
    assert Spent(**{name: vars(record)[name] for name in Spent.__dataclass_fields__}) == Spent(
        "recovery", "making", 5.0, 10.0
    )
    assert capsys.readouterr() == ("", "")


def _end_badly(clock: list[float]) -> None:
    with timed("recovery", "making"):
        clock[0] += 5
        raise OSError("full")


def test_what_failed_is_told_too_and_the_benchmark_reads_the_log(
    clock: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = Stages()
    stages.expect(["onnx q8"])
    with (
        caplog.at_level(logging.INFO, "runtimes"),
        stages.artifact("onnx q8"),
        pytest.raises(ValueError, match="broken"),
        stages.phase("replies"),
    ):
        clock[0] += 5
        raise ValueError("broken")
    (record,) = caplog.records
    assert record.message == "spent"
    facts = {name: getattr(record, name) for name in vars(stages.spent[0])}
    lines = [json.dumps({"event": "spent", **facts}), "a library's words\n", '{"event": "other"}']
    found = list(phases(lines))
    assert [vars(item) for item in found] == [vars(item) for item in stages.spent]
    assert table(found).row_count == 2
    assert "a library's words" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_terminal_shows_the_whole_run_while_a_phase_lasts(width: int) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width)
    names = [f"gguf q{bits}_0" for bits in range(30)]
    whole = Whole(2, 32, lambda: 200.0, "about 4 min left", names)
    with shown(console, whole, "[3/32] onnx q8: text", 2) as advance:
        advance()
    lines = [Text.from_ansi(line).plain for line in written.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "[3/32] onnx q8: text" in text
    assert "run  2 of 32 compared" in text
    assert "next gguf q0_0, gguf q1_0" in text
    assert "…" in text
    assert written.getvalue().endswith("\x1b[2K")  # nothing of it stays
