"""The one reader of parity.json reads what the parity run writes, and refuses the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproof.errors import InputError
from edgeproof.verdicts import REPORT, Interval, Verdict, read_report
from runtimes.parity.report.json import write_json
from runtimes.parity.result import ModelResult
from tests import parity_results
from tests.parity_results import hostile_result, measurement, result, usual_result


def written(folder: Path, run: ModelResult) -> Path:
    write_json(folder / REPORT, run)
    return folder / REPORT


@pytest.mark.parametrize("run", [usual_result(), hostile_result(), result()])
def test_what_a_run_found_is_what_its_readers_see(tmp_path: Path, run: ModelResult) -> None:
    report = read_report(written(tmp_path, run))
    assert (report.model, report.runtime) == (run.label, run.reference.runtime)
    assert [item.name for item in report.compared] == [entry.name for entry in run.entries]
    for item, entry in zip(report.compared, run.entries, strict=True):
        manifest, judgement = entry.artifact.manifest, entry.judgement
        assert report.of(entry.artifact.sha256) is item
        assert (item.files, item.bytes) == (manifest.outputs, entry.bytes)
        assert item.effective_bpw == manifest.effective_bpw
        assert (item.verdict, item.reasons) == (judgement.verdict, judgement.reasons)
        assert item.allow_degraded == entry.allow_degraded
        assert len(item.metrics) == len(entry.measurement.estimates if entry.measurement else ())
        run = entry.measurement
        assert item.ran == (run.runtime if run else None)
        assert item.activations == (run.execution.activations if run else None)
        assert item.unseen == (run.execution.unseen if run else ())
    assert report.of("0" * 64) is None


def test_a_report_of_schema_3_does_not_say_what_its_runs_leave_open(tmp_path: Path) -> None:
    path = written(tmp_path, usual_result())
    raw = json.loads(path.read_text("utf-8"))
    raw["schema"] = 3
    for item in raw["artifacts"]:
        if item["measurement"]:
            del item["measurement"]["execution"]
    path.write_text(json.dumps(raw))
    for item in read_report(path).compared:
        assert item.activations is None
        assert all("does not say" in text for text in item.unseen)
        assert bool(item.unseen) == (item.ran is not None)


def test_a_part_of_the_text_is_said_to_be_one_and_before_schema_5_there_was_none(
    tmp_path: Path,
) -> None:
    stopped = replace(measurement(), whole_text=False, positions=712)
    run = result(
        parity_results.entry("q4_0", Verdict.DEGRADED, measured=stopped),
        parity_results.entry("q8_0", Verdict.PASS, measured=measurement()),
        parity_results.entry("f16", Verdict.FAIL),
    )
    path = written(tmp_path, run)
    assert [item.part for item in read_report(path).compared] == [712, None, None]
    raw = {**json.loads(path.read_text("utf-8")), "schema": 4}
    for item in raw["artifacts"][:2]:
        del item["measurement"]["whole_text"], item["measurement"]["looks"]
    path.write_text(json.dumps(raw))
    assert [item.part for item in read_report(path).compared] == [None, None, None]


def test_numbers_that_do_not_exist_are_none(tmp_path: Path) -> None:
    passed = read_report(written(tmp_path, usual_result())).compared[0]
    assert passed.metrics["mean_kl"] == Interval(0.1 * 0.01, 0.05 * 0.01, 0.2 * 0.01)
    assert passed.metrics["fp16_headroom"] == Interval(1.0, 1.0, None)
    assert passed.of_weights is None


def test_a_share_says_how_many_positions_are_wrong_and_what_the_others_may_hide() -> None:
    assert Interval(1.0, 0.993, 1.0, 2929).errors == "0 of 2,929 (95 % upper bound 0.7 %)"
    assert Interval(0.9, 0.8, 1.0, 1200).errors == "120 of 1,200 (95 % upper bound 20 %)"
    assert Interval(1.0, None, None, 40).errors == "0 of 40"
    assert Interval(1.0, 0.99, 1.0).errors is None  # of a report of before
    assert Interval(None, None, None, 0).errors is None


def test_advice_names_exports(tmp_path: Path) -> None:
    report = read_report(written(tmp_path, usual_result()))
    best = {item.target: item.export for item in report.recommendations}
    assert best == {"llama.cpp": "gguf q8_0"}
    assert report.dominated_by["gguf q4_0"] == "gguf q5_0"
    assert report.dominated_by["gguf q8_0"] is None
    assert "gguf f16" not in report.dominated_by  # broken


def test_every_cut_off_report_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = written(tmp_path, usual_result())
    data = path.read_bytes()
    for end in range(0, len(data.rstrip()) - 1, 997):
        path.write_bytes(data[:end])
        assert_refused(path, "damaged, not a parity report (")


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("advice"),
        lambda raw: raw["artifacts"][0].pop("manifest"),
        lambda raw: raw["artifacts"][0].update(files=[{"path": "x"}]),
        lambda raw: raw["artifacts"][0]["measurement"]["estimates"].update(mean_kl={"mean": 1}),
        lambda raw: raw["artifacts"][0].update(verdict="GOOD"),
        lambda raw: raw.update(artifacts=None),
    ],
)
def test_a_report_that_lacks_something_is_refused(tmp_path: Path, change: Any) -> None:
    path = written(tmp_path, usual_result())
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw))
    assert_refused(path, "damaged, not a parity report (")


def test_a_report_of_before_shared_beginnings_counted_once_is_still_read(tmp_path: Path) -> None:
    path = written(tmp_path, usual_result())
    new = read_report(path)
    raw = {**json.loads(path.read_text("utf-8")), "schema": 3}
    del raw["reference"]["repeated"]
    path.write_text(json.dumps(raw))
    assert read_report(path) == new


def test_another_schema_and_no_report_say_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, usual_result())
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "schema": 2}))
    assert_refused(path, "schema 2, older than 3; compare again: python -m runtimes.parity")
    path.unlink()
    assert_refused(path, "missing; compare first: python -m runtimes.parity")


def assert_refused(path: Path, why: str) -> None:
    with pytest.raises(InputError) as caught:
        read_report(path)
    assert str(caught.value).startswith(f"{path}: {why}")
    assert "\n" not in str(caught.value)
