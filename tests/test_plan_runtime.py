"""A plan's `runtime`: in which runtime a variant's files are run, where it is not the usual one."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.errors import InputError
from edgeproof.steps.graph import Variant, build
from edgeproof.steps.planned import PlannedExports, PlannedMeasuring, heard
from export.formats import OURS, load_format
from export.plan import load_plan
from export.plan.plan import default_text
from export.steps.plan import main as plan_exports
from runtimes.formats import reader
from runtimes.parity.elsewhere import left_open
from runtimes.parity.steps.plan import main as plan_measuring
from tests.brought import edgeproof
from tests.caches import new_cache
from tests.parity_runs import invoke
from tests.required import need
from tests.test_steps_run import ROOT, command, report
from tests.tiny import long_texts, make_checkpoint

OPENVINO = "openvino"
KEY = f'runtime = "{OPENVINO}"\n'
USUAL = '[[variant]]\nformat = "gguf"\ndtype = "q8_0"\n'
PLAN = USUAL + KEY
GRAPH = PLAN.replace("gguf", "onnx").replace("q8_0", "fp32")
RECOVERED = USUAL.replace('"q8_0"', '"auto"') + "recover = { tokens = 512, bits = 8.0 }\n" + KEY


def export(folder: Path, plan: str) -> Path:
    (folder / "plan.toml").write_text(plan)
    if not (folder / "tiny").exists():
        make_checkpoint(folder / "tiny")
    options = ("-m", folder / "tiny", "-o", folder / "out", "--no-verify")
    done = edgeproof("export", "--plan", folder / "plan.toml", *options)
    assert done.exit_code == 0, done.output
    return folder / "out"


def compare(out: Path, *more: str) -> Result:
    return edgeproof("parity", "--root", out, "--budget", "fast", "--threads", "1", *more)


@pytest.mark.parametrize("form", OURS)
def test_a_plan_knows_the_runtimes_that_there_are(form: str, tmp_path: Path) -> None:
    assert set(load_format(form).runtimes) == set(reader(form).others)
    dtype = load_format(form).variants[0].name
    for name in load_format(form).runtimes:
        (tmp_path / "plan.toml").write_text(
            f'[[variant]]\nformat = "{form}"\ndtype = "{dtype}"\nruntime = "{name}"\n'
        )
        (request,) = load_plan(tmp_path / "plan.toml").variants
        assert request.runtime == name


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            PLAN.replace(OPENVINO, "openvin"),
            "'openvin' does not execute gguf; choose from llamacpp-gpu, openvino, or leave",
        ),
        (PLAN.replace(OPENVINO, "webgpu"), "'webgpu' does not execute gguf"),
        (PLAN.replace(f'"{OPENVINO}"', "true"), "runtime: True does not execute gguf"),
        (
            PLAN.replace('"gguf"', '"mlc"').replace('"q8_0"', '"q0f16"'),
            "'openvino' does not execute mlc; it has only its usual one: leave that out",
        ),
        (USUAL + PLAN, "gguf q8_0 is in the plan twice, for two runtimes: give one of them a plan"),
        (PLAN + PLAN, "gguf q8_0 is in the plan twice$"),
    ],
)
def test_another_name_and_the_same_file_for_two_runtimes_are_refused(
    tmp_path: Path, plan: str, message: str
) -> None:
    (tmp_path / "plan.toml").write_text(plan)
    with pytest.raises(InputError, match=message) as caught:
        load_plan(tmp_path / "plan.toml")
    assert "\n" not in str(caught.value)


def test_both_commands_refuse_such_a_plan_before_they_look_for_its_model(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(OPENVINO, "webgpu"))
    for line in (("export", "--plan", tmp_path / "plan.toml"), ("run", tmp_path / "plan.toml")):
        done = edgeproof(*line, "-m", tmp_path / "gone", "-o", tmp_path / "out")
        assert (done.exit_code, "'webgpu' does not execute gguf" in done.output) == (2, True)


def test_the_default_plan_says_how_to_switch_openvino_on(tmp_path: Path) -> None:
    """What its comments show, without their hashes, is a plan."""
    _, _, text = default_text().partition("Two more places")
    lines = re.findall(r"^#   (\S.*)$", text, re.MULTILINE)
    (tmp_path / "plan.toml").write_text("\n".join(lines))
    found = load_plan(tmp_path / "plan.toml").variants
    assert {(item.format, item.runtime) for item in found} == {
        ("mlx", None), ("onnx", OPENVINO), ("gguf", OPENVINO),
    }  # fmt: skip


def test_it_is_noted_and_the_file_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    out = export(tmp_path, PLAN + RECOVERED)
    (model,) = load_run_record(out).models
    (planned,), (recovery,) = model.artifacts, model.recovered
    assert [item.runtime for item in (planned, *recovery.variants)] == [OPENVINO] * 2
    before = (out / planned.path / "edgeproof.json").read_bytes()
    assert re.search(r"gguf q8_0 .*up to date", edgeproof("status", out).output)
    export(tmp_path, USUAL)
    (model,) = load_run_record(out).models
    assert model.artifacts == (replace(planned, runtime=None),)
    assert (out / planned.path / "edgeproof.json").read_bytes() == before


def test_a_runtime_that_is_not_here_is_said_before_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    out = export(tmp_path, PLAN)
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    (tmp_path / "installed").write_text("0\n")
    # What comes with llama.cpp is waited for, OpenVINO does not come with it.
    awaited = ("--await", "gguf", str(tmp_path / "installed"))
    for done in (compare(out), compare(out, *awaited)):
        assert done.exit_code == 2
        assert 'pip install "edgeproof[openvino]"' in done.output
    record = json.loads((out / "run.json").read_text())
    record["models"][0]["artifacts"][0]["runtime"] = "webgpu"
    (out / "run.json").write_text(json.dumps(record))
    done = compare(out)
    assert (done.exit_code, "gguf/q8_0: webgpu does not execute gguf" in done.output) == (2, True)
    # What is recovered later, too, is refused now.
    out = export(tmp_path, USUAL + RECOVERED)
    done = compare(out, "--recover")
    assert (done.exit_code, "edgeproof[openvino]" in done.output) == (2, True)
    assert not (tmp_path / "cache" / "reference").exists()


def test_a_run_by_steps_says_so_too_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text('raise ModuleNotFoundError(name="openvino")\n')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT))))
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plan.toml").write_text(PLAN)
    given = ("-m", make_checkpoint(tmp_path / "tiny"), "-o", tmp_path / "out", "--budget", "fast")
    done = edgeproof("run", tmp_path / "plan.toml", *given)
    assert (done.exit_code, 'pip install "edgeproof[openvino]"' in done.output) == (2, True)
    assert not (tmp_path / "out").exists()


def test_steps_that_measure_depend_on_it_and_the_export_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    make_checkpoint(tmp_path / "tiny")
    done = invoke(plan_measuring, "--budget", "fast", "--threads", "1", "--device", "cpu")
    assert done.exit_code == 0, done.output
    measuring = heard(PlannedMeasuring, done.output)

    def steps(plan: str) -> Variant:
        (tmp_path / "plan.toml").write_text(plan)
        asked = invoke(plan_exports, "--plan", tmp_path / "plan.toml", "-m", tmp_path / "tiny")
        assert asked.exit_code == 0, asked.output
        (model,) = build(heard(PlannedExports, asked.output), measuring, {}).models
        (variant,) = model.variants
        return variant

    usual, other = steps(USUAL), steps(PLAN)
    assert usual.export == other.export
    pairs = ((usual.footprint, other.footprint), (usual.measure, other.measure))
    for before, now in pairs:
        assert before is not None and now is not None
        assert "runtime" not in before.params  # stored results of before are still found
        assert now.params["runtime"] == OPENVINO
        assert before.key != now.key


def test_what_the_named_runtime_leaves_open_is_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of the run's own report, by which a card finds the answer."""
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    out = export(tmp_path, GRAPH.replace("fp32", "fp16"))
    artifact = open_artifact(out / "tiny" / "onnx" / "fp16")
    (asked,) = left_open(artifact, allow_degraded=False, ran_in=OPENVINO)
    assert asked.runtime == "webgpu"
    assert "it ran in OpenVINO" in asked.unseen
    assert not any(
        item.runtime == "webgpu"
        for item in left_open(artifact, allow_degraded=False, ran_in="webgpu")
    )


@pytest.mark.slow
@pytest.mark.numbers
def test_both_commands_and_the_run_by_steps_have_it_run_there(tmp_path: Path) -> None:
    need("openvino_genai", "openvino")
    make_checkpoint(tmp_path / "tiny")
    new_cache(tmp_path)
    (tmp_path / "plan.toml").write_text(GRAPH)
    (tmp_path / "text.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in long_texts())
    )
    given = ("-m", "tiny", "-o")
    few = ("--text=text.jsonl", "--threads=1", "--no-html")
    for line in (
        ("export", "--plan=plan.toml", *given, "serial"),
        ("runtimes.parity", "--root=serial", *few),
        ("edgeproof", "run", "plan.toml", *given, "out", "--workers=2", *few),
    ):
        done = command(tmp_path, *line)
        assert done.returncode == 0, done.stderr
    (found,) = report(tmp_path / "out")["artifacts"]
    assert found["verdict"] == "PASS"
    assert found["measurement"]["execution"]["place"] == "OpenVINO"
    assert report(tmp_path / "out") == report(tmp_path / "serial")
    assert load_run_record(tmp_path / "out") == load_run_record(tmp_path / "serial")
