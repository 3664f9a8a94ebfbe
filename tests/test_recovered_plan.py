"""A plan's recovered variants: checked first, made last, compared with the original, made once."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.cli import main
from edgeproof.files.hashing import OutputFile, input_records
from edgeproof.recovery_cost import whole
from edgeproof.steps import command as steps_command
from edgeproof.steps import run as steps_run
from edgeproof.steps.children import Children
from edgeproof.verdicts import read_report
from export.checkpoint import open_folder
from export.formats import OURS, load_format
from export.plan import load_plan
from export.release.card import SourceCard, model_card
from export.release.repositories import repositories
from export.release.selection import select
from runtimes.child import run_module
from runtimes.demo.build import describe
from runtimes.formats import dequantise
from runtimes.parity import __main__ as parity
from runtimes.parity import tokenizer
from runtimes.parity.original import original_inputs
from runtimes.parity.steps.timed import untimed
from runtimes.recover import planned
from runtimes.recover import run as runs
from runtimes.recover.targets import TARGETS
from tests.tiny import CHAT_TEMPLATE, make_checkpoint

PLAN = """
[[variant]]
format = "gguf"
dtype = "q8_0"

[[variant]]
format = "gguf"
dtype = ["auto"]
recover = { format = "any", tokens = 512 }
allow-degraded = true

[[variant]]
format = "onnx"
dtype = ["q4"]
recover = { format = "any", tokens = 512 }
allow-degraded = true
"""
RECOVERED = ("gguf recovered", "onnx q4-recovered")
FURTHER = "additional_chat_templates/tool_use.jinja"  # in a folder of its own
TEXT = "\n\n".join(f"The ferry left harbour {n} at noon, with goats. " * 4 for n in range(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model and a plan of it; what is made stays in one cache, in one process."""
    folder = tmp_path_factory.mktemp("planned")
    model = make_checkpoint(folder / "tiny", max_position_embeddings=65)
    (model / FURTHER).parent.mkdir()
    (model / FURTHER).write_text(CHAT_TEMPLATE)
    (model / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (folder / "plan.toml").write_text(PLAN)
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "COUNT", 20)
        patch.setattr(runs, "LEAST_HELD", 512)
        patch.setattr(parity, "run_module", in_process)
        patch.setattr(planned, "run_module", in_process)
        yield folder


@pytest.fixture(autouse=True)
def _cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "folder" in request.fixturenames:
        folder = request.getfixturevalue("folder")
        monkeypatch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))


def in_process(module: str, *arguments: str | Path) -> int:
    done = CliRunner().invoke(import_module(module).main, list(map(str, arguments)))
    click.echo(done.output)
    return done.exit_code


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def export(folder: Path, *arguments: str) -> Result:
    plan, model, out = folder / "plan.toml", folder / "tiny", folder / "out"
    return run("export", "--plan", plan, "-m", model, "-o", out, *arguments)


def compare(folder: Path, *arguments: str) -> Result:
    options = ("--threads", "1", "--no-footprint", "--no-html", "--allow-degraded", *arguments)
    return run("parity", "--root", folder / "out", "--text", folder / "text.txt", *options)


def states(folder: Path) -> dict[str, dict[str, Any]]:
    done = run("status", folder / "out", "--json")
    assert done.exit_code == 0, done.output
    return {item["name"]: item for item in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def made(folder: Path) -> str:
    """Everything exported, recovered and compared; what the comparison printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(folder / "cache"))
        for done in (export(folder), compare(folder, "--recover")):
            assert done.exit_code == 0, done.output
    return done.output


def test_the_record_and_the_report_have_both(folder: Path, made: str) -> None:
    (model,) = load_run_record(folder / "out").models
    assert len(model.made) == 1  # both formats of one goal lie on one checkpoint
    assert [item.path for item in model.everything] == [
        f"tiny/{name.replace(' ', '/')}" for name in ("gguf q8_0", *RECOVERED)
    ]
    found = read_report(folder / "out" / "tiny" / "parity.json")
    assert [item.name for item in found.compared] == ["gguf q8_0", *RECOVERED]
    for item in found.compared:
        # Stored values are the recovered checkpoint's, and the function is judged by the original.
        assert item.verdict.value in ("PASS", "INCONCLUSIVE", "DEGRADED"), item.reasons
        assert item.of_weights is not None
        assert item.of_weights["mean_kl"].value
    # The plain verdicts are printed before anything is recovered.
    plain, _, both = made.partition("report: ")
    assert "gguf q8_0" in plain
    assert "recovered" not in plain
    assert all(name in both for name in RECOVERED)


def test_the_original_is_captured_once_for_both(folder: Path, made: str) -> None:
    del made
    assert len(list((folder / "cache" / "reference").iterdir())) == 1


@pytest.mark.parametrize("shards", [1, 2])
def test_the_originals_files_are_named_as_its_own_exports_name_them(
    tmp_path: Path, shards: int
) -> None:
    original = make_checkpoint(tmp_path / "original", shards=shards)
    recovered = make_checkpoint(tmp_path / "recovered")

    def named(model: Path) -> tuple[OutputFile, ...]:
        return input_records(open_folder(model).input_files, tmp_path / "digests")

    assert original_inputs(original, recovered, named(recovered)) == named(original)


def test_all_are_files_of_one_model(folder: Path, made: str) -> None:
    del made
    manifests = [json.loads(path.read_text()) for path in folder.glob("out/*/*/*/edgeproof.json")]
    assert len(manifests) == 3
    assert len({item["model"]["name"] for item in manifests}) == 1
    assert len({json.dumps(item["model"]["inputs"]) for item in manifests}) == 2


def test_reports_and_cards_say_what_is_recovered(folder: Path, made: str) -> None:
    assert "What recovery mends:" in made
    assert made.count("512 tokens of calibration text") == 2
    report = read_report(folder / "out" / "tiny" / "parity.json")
    assert [item.recovered for item in report.compared] == [None, 512, 512]
    released = select(folder / "out" / "tiny", report, allow_degraded=True)
    source = SourceCard({}, released[0].artifact.manifest.model)
    shown = [describe(item.artifact) for item in released]
    recovered = ["recovered" in model.dtype for model in shown]
    assert [any("tokens of calibration" in text for text in m.found) for m in shown] == recovered
    assert all(any(text.startswith("mean KL ") for text in model.found) for model in shown)
    for repository in repositories(released):
        card = model_card(repository, source, report, "me").decode()
        assert card.count("was made from a *recovered* checkpoint") == 1


def test_status_knows_them(folder: Path, made: str) -> None:
    del made
    rows = states(folder)
    assert all(rows[name]["stale"] is rows[name]["unknown"] is None for name in RECOVERED)


def test_again_nothing_is_made(folder: Path, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del made
    assert export(folder).output.count("unchanged, reused") == 1
    assert "not made yet" in states(folder)["gguf recovered"]["unknown"]
    monkeypatch.setattr(runs, "recover", None)
    done = CliRunner().invoke(planned.main, ["--root", str(folder / "out"), "--threads", "1"])
    assert (done.exit_code, done.output.count("unchanged, reused")) == (0, 3), done.output


def test_steps_make_them_as_the_two_commands_do(
    folder: Path, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record, reports but for timed fields, and files; a second run does nothing again."""
    del made
    step_processes(monkeypatch)
    options = ("-m", folder / "tiny", "--threads", "1", "--text", folder / "text.txt")
    few = (*options, "--no-footprint", "--no-html", "--allow-degraded", "--executor=serial")
    done = run("run", folder / "plan.toml", "-o", folder / "steps", *few)
    assert done.exit_code == 0, done.output
    assert "8 steps: 8 done" in done.output  # one checkpoint for both formats
    first, second = (load_run_record(folder / name) for name in ("out", "steps"))
    assert first == second
    reports = []
    for name in ("out", "steps"):
        text = (folder / name / "tiny" / "parity.json").read_text()
        reports.append(untimed(json.loads(text.replace(str(folder / name), "ROOT"))))
    assert reports[0] == reports[1]
    for path in (folder / "out").rglob("edgeproof.json"):
        same = folder / "steps" / path.relative_to(folder / "out")
        assert same.read_bytes() == path.read_bytes()
    without = run("run", folder / "plan.toml", "-o", folder / "few", *few, "--no-recover")
    assert "3 steps: 3 stored" in without.output


def step_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have steps' processes run in this one, where texts are short."""

    def run(command: list[str], *, given: str | None = None, **_: Any) -> Any:
        module, arguments = command[2], command[3:]
        done = CliRunner().invoke(import_module(module).main, arguments, input=given)
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    monkeypatch.setattr(steps_command, "run", run)
    monkeypatch.setattr(steps_run, "run", run)
    monkeypatch.setattr(Children, "run", lambda self, command: run(command))


def test_without_recovery_they_are_no_part_of_the_run(folder: Path, tmp_path: Path) -> None:
    plan = ("--plan", folder / "plan.toml", "-m", folder / "tiny", "-o", tmp_path)
    assert run("export", *plan, "--no-recover").exit_code == 0
    assert "recover" not in run("status", tmp_path).output
    assert run("export", *plan).exit_code == 0
    lines = [line for line in run("status", tmp_path).output.splitlines() if "missing" in line]
    assert [name in line for name, line in zip(RECOVERED, lines, strict=True)] == [True] * 2
    dry = run("export", *plan, "--dry-run").output
    assert "recover: any; after the comparison" in dry


def test_larger_models_are_recovered_where_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("recover-up-to = 100_000\n" + PLAN)
    plan = ("--plan", tmp_path / "plan.toml", "-m", folder / "tiny", "-o", tmp_path / "out")
    done = run("export", *plan, "--format", "gguf")
    assert done.exit_code == 0, done.output
    line = done.output.splitlines()[-1]
    assert line.startswith("tiny: gguf recovered left out: 0M parameters take about ")
    assert "recovers up to 0.1M (recover-up-to); --recover, or make export-all RECOVER=yes" in line
    (model,) = load_run_record(tmp_path / "out").models
    assert (len(model.artifacts), model.recovered) == (1, ())
    done = run("export", *plan, "--format", "gguf", "--recover")
    assert "recover: any; after the comparison" in done.output
    (model,) = load_run_record(tmp_path / "out").models
    assert len(model.recovered) == 1


@pytest.mark.parametrize(
    ("value", "count"), [('"400M"', 400_000_000), ('"1.5 B"', 1_500_000_000), ("7", 7)]
)
def test_a_plan_says_how_large_models_it_recovers(tmp_path: Path, value: str, count: int) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f"recover-up-to = {value}\n{PLAN}")
    plan = load_plan(path)
    assert plan.recover_up_to == count
    assert plan.recovering(None) == plan
    assert plan.recovering(True).recover_up_to is None
    assert all(item.plain for item in plan.recovering(False).variants)


def test_a_recovery_takes_longer_for_each_weight_of_a_wider_model() -> None:
    def seconds(hidden: int) -> float:
        shapes = [(1000, hidden), (hidden, 4 * hidden), (4 * hidden, hidden), (hidden,)]
        return whole(shapes, {8192}, 1) / sum(math.prod(shape) for shape in shapes)

    assert seconds(2048) > seconds(512)
    assert whole([(64, 64)], {1024, 2048}, 2) > whole([(64, 64)], {2048}, 1)


def test_a_recovery_that_fails_leaves_the_other_verdicts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace('format = "any"', "bits = 4.5", 1))
    out = tmp_path / "out"
    plan = ("--plan", tmp_path / "plan.toml", "-m", folder / "tiny", "-o", out)
    assert run("export", *plan).exit_code == 0
    text = ("--text", folder / "text.txt", "--no-html", "--no-footprint", "--allow-degraded")
    done = run("parity", "--root", out, *text, "--threads", "1", "--recover")
    assert done.exit_code == 2
    assert [item.name for item in read_report(out / "tiny/parity.json").compared] == ["gguf q8_0"]


def test_what_ends_the_run_ends_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_module("platform") == 0
    assert run_module("json.tool", "/nowhere") != 0
    begun = []

    def interrupted(run: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        begun.append(run)
        monkeypatch.undo()
        raise SystemExit(130)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(SystemExit):
        run_module("http.server", "0")
    assert begun[0].returncode not in (None, 0)


@pytest.mark.parametrize("optional", ["true", "false"])
def test_what_is_optional_is_left_out_of_a_model_that_no_grid_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optional: str
) -> None:
    monkeypatch.setattr(planned, "run_module", in_process)
    model = make_checkpoint(tmp_path / "tiny", intermediate_size=80)
    wish = f'{{ format = "any", tokens = 512, optional = {optional} }}'
    text = f'[[variant]]\nformat = "mlc"\ndtype = "auto"\nrecover = {wish}\n'
    (tmp_path / "plan.toml").write_text(text)
    out = tmp_path / "out"
    assert run("export", "--plan", tmp_path / "plan.toml", "-m", model, "-o", out).exit_code == 0
    done = CliRunner().invoke(planned.main, ["--root", str(out)])
    assert "rows of 80 values, no multiple of 32" in done.output
    if optional == "true":
        assert done.exit_code == 0
        assert "left out" in done.output
        assert not load_run_record(out).models[0].recovered
    else:
        assert done.exit_code == 2


@pytest.mark.parametrize("form", OURS)
def test_export_and_recovery_agree_on_what_a_format_stores(form: str) -> None:
    recovered = load_format(form).recovered
    assert (recovered is None) == (form not in TARGETS)
    if recovered is None:
        return
    assert recovered.mixes == TARGETS[form].mixed
    for name in recovered.names.values():
        assert load_format(form).variant(name).name == name


def test_mlx_takes_part_and_shares_a_checkpoint(folder: Path, tmp_path: Path, made: str) -> None:
    """Of the shared grid the values are those of the other formats; a size of its own is kept."""
    del made
    wishes = ('{ format = "any", tokens = 512 }', "{ bits = 6.2, tokens = 512 }")
    found = []
    for wish in wishes:
        text = f'[[variant]]\nformat = "mlx"\ndtype = "auto"\nrecover = {wish}\n'
        (tmp_path / "plan.toml").write_text(text)
        out = tmp_path / f"out-{len(found)}"
        plan = ("--plan", tmp_path / "plan.toml", "-m", folder / "tiny", "-o", out)
        assert run("export", *plan).exit_code == 0
        done = CliRunner().invoke(planned.main, ["--root", str(out), "--threads", "1"])
        assert done.exit_code == 0, done.output
        (model,) = load_run_record(out).models
        (recovery,) = model.made
        found.append((recovery, open_artifact(out / "tiny" / "mlx" / "recovered")))
    (shared, first), (sized, second) = found
    (other, *_) = load_run_record(folder / "out").models[0].made
    assert shared.checkpoint == other.checkpoint
    for artifact, recovery in ((first, shared), (second, sized)):
        weights, checkpoint = dequantise(artifact), Path(recovery.checkpoint or "")
        stored = load_file(checkpoint / "model.safetensors")
        assert all(np.array_equal(weights[name], stored[name]) for name in stored)
    types = set(second.manifest.weights["types"])
    assert len(types - {"float16"}) > 1
    assert second.manifest.weights["effective_bpw"] <= 6.2
