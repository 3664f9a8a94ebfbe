"""`make size-table`: what it prints of a parity report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import size_table
from edgeproof.verdicts import Verdict
from runtimes.parity.report.json import write_json
from tests.parity_results import entry, measurement, result, usual_result


def test_every_export_has_a_row_and_a_broken_one_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "parity.json"
    write_json(path, usual_result())
    monkeypatch.setattr(sys, "argv", ["size_table", str(path)])
    with pytest.raises(SystemExit) as caught:
        size_table.main()
    assert caught.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| `gguf")]
    assert len(rows) == len(json.loads(path.read_text("utf-8"))["artifacts"])
    assert {line.count("|") for line in rows} == {lines[2].count("|")}
    assert "| `gguf q4_0` | 0.0 | 4.50 | 0% | 0.1 | – | 10.0%" in rows[1]
    assert rows[1].endswith("DEGRADED | `gguf q5_0` |")
    assert "FAIL" in rows[3]
    assert any(line.startswith("| llama.cpp | `gguf q8_0` |") for line in lines)


def test_it_exits_0_where_nothing_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "p.json", result(entry("q8_0", Verdict.PASS, measured=measurement())))
    monkeypatch.setattr(sys, "argv", ["size_table", str(tmp_path / "p.json")])
    with pytest.raises(SystemExit) as caught:
        size_table.main()
    assert caught.value.code == 0
