"""What a run tells while it runs: what it is at, what that took, and about what is left."""

from __future__ import annotations

import json
import logging

import pytest

from benchmarks.time_to_verdict import phases, table
from runtimes.parity import stages as module
from runtimes.parity.stages import Spent, Stages


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which tests set; CPU seconds are twice that."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_cpu_seconds", lambda: 2 * now[0])
    return now


def _run(stages: Stages, clock: list[float], label: str, seconds: float) -> None:
    with stages.artifact(label), stages.phase("text", 2) as advance:
        advance()
        clock[0] += seconds


def test_a_line_says_what_an_artifact_took_and_about_what_is_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    stages = Stages()
    stages.expect(3)
    with stages.subject("reference"), stages.phase("load"):
        clock[0] += 3
    _run(stages, clock, "gguf q8_0", 60)
    _run(stages, clock, "gguf q4_0", 90)
    _run(stages, clock, "gguf q4_1", 30)
    assert capsys.readouterr().err.splitlines() == [
        "  reference: 3 s (load 3)",
        "  [1/3] gguf q8_0: 60 s (text 60); about 2 min left",
        "  [2/3] gguf q4_0: 90 s (text 90); about 80 s left",
        "  [3/3] gguf q4_1: 30 s (text 30)",
    ]
    assert stages.spent[1] == Spent("gguf q8_0", "text", 60.0, 120.0)


def test_what_failed_is_told_too_and_the_benchmark_reads_the_log(
    clock: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = Stages()
    stages.expect(1)
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
