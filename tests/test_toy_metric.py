"""A metric of one's own goes through the whole parity run; only plans are told its name.

It is defined wholly in this module: what it computes at a position, its statistic, its kind of
interval, its direction and its texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from edgeproof.verdicts import METRICS
from export.__main__ import main as export_main
from runtimes.parity import metrics
from runtimes.parity.__main__ import main as parity_main
from runtimes.parity.compare import main as compare_main
from runtimes.parity.divergence import ARRAYS, compare
from runtimes.parity.intervals import Estimate, Interval, Sample
from runtimes.parity.metrics import SHARE, Metric, weighted_mean
from runtimes.parity.report.schema import metrics_table, schema
from tests.tiny import make_checkpoint


def raised(reference: np.ndarray, export: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Where the reference's most likely token has a higher logit in the export: 1, else 0."""
    rows, best = np.arange(len(reference)), reference.argmax(-1)
    return (export[rows, best] > reference[rows, best]).astype(np.float64)


def whole_range(sample: Sample) -> Estimate:
    """From the least to the most that any resample has."""
    return Estimate(sample.value, float(sample.resampled.min()), float(sample.resampled.max()))


TOY = Metric(
    "raised_best",
    "Positions where the export raises the logit of the reference's most likely token.",
    SHARE,
    lambda m, w: weighted_mean(m.further["raised_best"], w),
    interval=Interval("whole range", whole_range),
    more_is_better=True,
    column="raised %",
    essential=True,
    compared=True,
    per_position=raised,
)
PLAN = """
[[variant]]
format = "gguf"
dtype = ["f16", "q4_0"]
allow-degraded = true

[gates.fp16]
raised_best = 0.01

[gates.4-bit]
raised_best = 0.99
"""
TEXTS = ("Rain fell on the old harbour.", "Two and two are four.", "A goat ate the piano's lid.")


def invoke(command: Any, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exports of a tiny model, compared with PyTorch while the toy metric is registered."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "plan.toml").write_text(PLAN)
    lines = (json.dumps({"text": f"{text} " * 4}) for text in TEXTS)
    (folder / "text.jsonl").write_text("\n".join(lines))
    model = make_checkpoint(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))
        patch.setattr(metrics, "METRICS", (*metrics.METRICS, TOY))
        patch.setattr("export.plan.plan.METRICS", (*METRICS, TOY.name))
        plan = ("--plan", folder / "plan.toml", "-m", model, "-o", folder / "out")
        assert invoke(export_main, *plan).exit_code == 0
        result = invoke(
            parity_main, "--root", folder / "out", "--text", folder / "text.jsonl",
            "--no-footprint", "--markdown", folder / "out/parity.md",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        (folder / "out" / "terminal.txt").write_text(result.output)
        yield folder / "out"


def artifacts(out: Path) -> dict[str, Any]:
    raw = json.loads((out / "tiny" / "parity.json").read_text())
    return {item["variant"]: item for item in raw["artifacts"]}


def test_it_is_in_the_json_with_an_interval_and_in_the_schema(out: Path) -> None:
    for item in artifacts(out).values():
        for estimates in (item["measurement"]["estimates"], item["measurement"]["weights"]):
            found = estimates[TOY.name]
            assert 0 < found["low"] <= found["value"] <= found["high"] < 1
            assert found["low"] < found["high"]
    described = schema()["$defs"]["Measurement"]["properties"]["estimates"]["properties"][TOY.name]
    assert TOY.text in described["description"]
    validator = Draft202012Validator(schema())
    raw = json.loads((out / "tiny" / "parity.json").read_text())
    validator.validate(raw)
    del raw["artifacts"][0]["measurement"]["estimates"][TOY.name]["low"]
    assert not validator.is_valid(raw)


def test_it_is_in_the_terminal_the_page_and_the_markdown(out: Path) -> None:
    value = artifacts(out)["q4_0"]["measurement"]["estimates"][TOY.name]["value"]
    shown = f"{100 * value:.1f}"
    (row,) = (
        line for line in (out / "terminal.txt").read_text().splitlines()
        if line.startswith(" gguf q4_0 ")
    )  # fmt: skip
    assert "raised %" in (out / "terminal.txt").read_text()
    assert shown in row.split()
    markdown = (out / "parity.md").read_text("utf-8")
    assert "raised %" in markdown
    assert f"| {shown} |" in markdown
    page = (out / "tiny" / "parity.html").read_text("utf-8")
    assert ">raised %<" in page
    assert f">{TOY.name}<" in page
    assert f">{shown}<" in page


def test_a_plan_gates_it(out: Path) -> None:
    found = artifacts(out)
    (gate,) = (gate for gate in found["f16"]["gates"] if gate["metric"] == TOY.name)
    assert (gate["limit"], gate["at_least"], gate["reason"]) == (0.01, True, "set by the plan")
    assert not any(TOY.name in reason for reason in found["f16"]["reasons"])
    assert found["q4_0"]["verdict"] == "DEGRADED"
    assert any(r.startswith(f"{TOY.name} = ") for r in found["q4_0"]["reasons"])


def test_two_exports_are_compared_by_it(out: Path, tmp_path: Path) -> None:
    pair = (out / "tiny/gguf" / name for name in ("f16", "q4_0"))
    text, figures = out.parent / "text.jsonl", tmp_path / "figures.json"
    result = invoke(compare_main, *pair, "--root", out, "--text", text, "--json", figures)
    assert result.exit_code == 0, result.output
    assert TOY.name in result.output
    (row,) = (r for r in json.loads(figures.read_text())["rows"] if r["metric"] == TOY.name)
    assert row["difference"]["low"] < row["difference"]["high"]


def test_it_is_in_the_table_of_metrics(out: Path) -> None:
    assert f"| `{TOY.name}` | share | more | whole range | {TOY.text} |" in metrics_table()


def test_a_function_sees_every_position_once_with_what_follows() -> None:
    seen: list[np.ndarray] = []

    def noted(reference: np.ndarray, export: np.ndarray, following: np.ndarray) -> np.ndarray:
        seen.append(following)
        return np.abs(export - reference).max(-1)

    p, q = np.random.default_rng(0).normal(size=(2, 21, 30)).astype(np.float32)
    found = compare(p, q, range(21), {"largest": noted})
    assert np.concatenate(seen).tolist() == [*range(1, 21), -1]
    assert np.array_equal(found.further["largest"], found.max_difference)
    with pytest.raises(ValueError, match="largest"):
        compare(p, q, range(21), {"largest": lambda a, b, following: a.max(-1)[:1]})


def test_it_changes_none_of_the_others() -> None:
    p, q = np.random.default_rng(0).normal(size=(2, 21, 30)).astype(np.float32)
    plain, more = compare(p, q, range(21)), compare(p, q, range(21), {TOY.name: raised})
    for name in ARRAYS:
        assert np.array_equal(getattr(plain, name), getattr(more, name), equal_nan=True)
