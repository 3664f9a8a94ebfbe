"""`make recovery-table`: what it prints of the reports that it has, without making them again."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import recovery_table
from benchmarks.recovery_table import GOALS, TITLES
from edgeproof.recovery import RECOVERY
from edgeproof.verdicts import REPORT, Verdict
from export.plan import load_plan
from runtimes.parity.report.json import write_json
from tests.parity_results import entry, measurement, result, usual_result


def printed(out: Path, *options: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(recovery_table.main, [str(out), *options])
    return done.exit_code, done.output.splitlines()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder in which everything has been made."""
    for goal in GOALS:
        checkpoint = tmp_path / goal.name / "checkpoint"
        checkpoint.mkdir(parents=True)
        (checkpoint / RECOVERY).touch()
        one = result(entry("q4_0", Verdict.PASS, measured=measurement()))
        write_json(checkpoint.parent / REPORT, one)
    (tmp_path / "plain" / "tiny").mkdir(parents=True)
    return tmp_path


def test_every_file_has_a_row_in_the_order_of_its_bits(out: Path) -> None:
    write_json(out / "plain" / "tiny" / REPORT, usual_result())
    code, lines = printed(out)
    assert code == 1  # one of the usual result is broken
    assert {line.count("|") for line in lines} == {len(TITLES) + 1}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert len(rows) == len(GOALS) + len(usual_result().entries)
    bits = [float(row[1]) for row in rows]
    assert bits == sorted(bits)
    for goal in GOALS:
        row = next(row for row in rows if row[0] == f"`recovered {goal.name}, gguf q4_0`")
        assert row[3].startswith("0.1 [")
        assert row[-2:] == ["PASS", "–"]
    broken = next(row for row in rows if row[-2] == "FAIL")
    assert broken[3:8] == ["–"] * 5


def test_it_exits_0_where_nothing_is_broken(out: Path) -> None:
    write_json(
        out / "plain" / "tiny" / REPORT,
        result(entry("q8_0", Verdict.PASS, measured=measurement())),
    )
    assert printed(out)[0] == 0


def test_some_rows_alone(out: Path) -> None:
    goal = GOALS[1].name
    code, lines = printed(out, "--goal", goal)
    assert code == 0
    assert len(lines) == 3
    assert f"recovered {goal}," in lines[2]


def test_its_plan_is_one() -> None:
    assert len(load_plan(recovery_table.PLAN).variants) > 1
