"""Files that a run is given: of all that lies beside them, a step takes the one that was named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeproof.steps.job import Job, write_job
from export.steps import plan as exports
from export.steps import variant
from runtimes.parity.steps import plan as measuring
from runtimes.parity.steps.params import TEXT, TextParams, suite_of
from tests.tiny import make_checkpoint


def planned(command: Any, *options: object) -> dict[str, Any]:
    done = CliRunner().invoke(command, [str(option) for option in options])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_text_is_read_from_its_own_file(tmp_path: Path) -> None:
    for name in ("a.txt", "mine.txt", "z.txt"):
        (tmp_path / name).write_text(f"What {name} says.")
    told = planned(measuring.main, "--text", tmp_path / "mine.txt", "--threads", 1)
    job = Job({**told["of_text"], "inputs": []}, {TEXT: told["text"]["folder"]}, "", {})
    assert [prompt.text for prompt in suite_of(job, job.told(TextParams)).prompts] == [
        "What mine.txt says."
    ]


def test_an_option_has_its_own_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, beside = make_checkpoint(tmp_path / "tiny"), tmp_path / "beside"
    beside.mkdir()
    for name in ("a.txt", "b.txt", "mine.txt", "y.txt", "z.txt"):
        (beside / name).write_text("")
    plan = tmp_path / "plan.toml"
    options = f'imatrix = "auto"\ncalibration = "{beside / "mine.txt"}"\n'
    plan.write_text(f'[[variant]]\nformat = "gguf"\ndtype = "q4_0"\n{options}')
    told = planned(exports.main, "--plan", plan, "--model", folder)
    (item,) = told["models"][0]["exports"]
    inputs = {"model": folder, "calibration": Path(item["files"]["calibration"]["folder"])}
    write_job(tmp_path / "job.json", item["params"], inputs, tmp_path / "out", {})
    done = CliRunner().invoke(variant.main, [str(tmp_path / "job.json")])
    assert done.exit_code == 2
    assert "mine.txt: no text" in capfd.readouterr().err


def test_a_worker_with_other_tools_refuses_an_export_by_their_name(tmp_path: Path) -> None:
    """Also those of an environment that is made on demand, as Optimum's: none is made here."""
    folder = make_checkpoint(tmp_path / "tiny")
    plan = tmp_path / "plan.toml"
    plan.write_text('[[variant]]\nformat = "onnx"\ndtype = "fp32"\nengine = "optimum"\n')
    told = planned(exports.main, "--plan", plan, "--model", folder)
    (item,) = told["models"][0]["exports"]
    (name, *_) = (name for name in item["params"]["tools"] if "optimum environment" in name)
    assert name not in item["versions"]
    item["params"]["tools"][name] = "0.0.1"
    write_job(tmp_path / "job.json", item["params"], {"model": folder}, tmp_path / "out", {})
    done = CliRunner().invoke(variant.main, [str(tmp_path / "job.json")])
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert name in line
    assert "begun with 0.0.1" in line
