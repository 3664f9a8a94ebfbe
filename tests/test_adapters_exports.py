"""Adapters from the command line and from plans, through every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, RunRecord, load_run_record
from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.verdicts import Verdict
from export.checkpoint.merge_record import MERGE_RECORD, read_merge_record
from export.locate import main as locate
from export.plan import ModelRequest, load_plan
from export.sources import resolve
from export.sources.adapters import AdapterRequest
from export.upkeep import states
from tests import tiny
from tests.exported import export_tiny
from tests.lora import make_lora
from tests.parity_results import entry, measurement
from tests.publishing import build
from tests.releases import LABEL, report

VARIANT = '[[variant]]\nformat = "gguf"\ndtype = "f16"\n'
PLAN = """
[[models]]
id = "{base}"
adapters = ["{lora}", {{ id = "{lora}", weight = 0.5 }}]
[[variant]]
format = "gguf"
dtype = ["f32", "q4_0"]
[[variant]]
format = "onnx"
dtype = "fp32"
[[variant]]
format = "mlc"
dtype = "q0f16"
"""


def test_a_plan_exports_the_merged_model_in_every_format_and_status_knows_it(
    tmp_path: Path,
) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    lora = make_lora(tmp_path / "lora", base)
    plan, root = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(PLAN.format(base=base.as_posix(), lora=lora.as_posix()))
    command = ["export", "--plan", str(plan), "--out", str(root)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (run,) = load_run_record(root).models
    assert run.label == "base+lora+lora-x0.5"
    record = read_merge_record(Path(run.checkpoint))
    assert record is not None
    assert [adapter.weight for adapter in record.adapters] == [1.0, 0.5]
    found = states(root, check=True)
    assert len(found) == 4
    assert all(state.up_to_date for state in found), found
    for state in found:
        model = open_artifact(state.path).manifest.model
        assert MERGE_RECORD in {item.path for item in model.inputs}
        assert (model.repo, model.revision) == (None, None)
    again = CliRunner().invoke(main, command)
    assert again.output.count("unchanged, reused") == 4, again.output


def test_the_command_line_merges_in_its_order(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    first, second = (make_lora(tmp_path / name, base) for name in ("first", "second"))
    command = ["gguf", "-m", str(base), "-d", "f16", "-o", str(tmp_path / "out")]
    command += ["--adapter", str(second), "--adapter", str(first)]
    command += ["--adapter-weight", "1", "--adapter-weight", "0.25"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == "base+second+first-x0.25"


@pytest.mark.parametrize(
    ("given", "adapters"),
    [
        ('adapter = "a"', (AdapterRequest("a"),)),
        ('adapter = { id = "a", weight = 2 }', (AdapterRequest("a", 2.0),)),
        (
            'adapters = ["a", { id = "b", weight = 2 }]',
            (AdapterRequest("a"), AdapterRequest("b", 2)),
        ),
        ("adapters = []", ()),
    ],
)
def test_a_plan_names_adapters_of_each_model(
    tmp_path: Path, given: str, adapters: tuple[AdapterRequest, ...]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f'models = [{{ id = "m", {given} }}, "other"]\n{VARIANT}')
    expected = (ModelRequest("m", None, adapters), ModelRequest("other"))
    assert load_plan(path).models == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("adapter = 3", "an adapter is a string or a table"),
        ('adapter = "a", adapters = ["b"]', "not both"),
        ('adapter = { id = "a", scale = 2 }', "unknown key 'scale' in adapter"),
        ('adapter = { id = "a", weight = "2" }', "must be a number"),
        ('adapter = { id = "a", weight = nan }', "must be finite"),
    ],
)
def test_a_plan_with_bad_adapters_is_refused(tmp_path: Path, given: str, message: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f'models = [{{ id = "m", {given} }}]\n{VARIANT}')
    with pytest.raises(InputError, match=message):
        load_plan(path)


def test_adapters_of_no_model_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", "--adapter", "x", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "--adapter needs --model" in done.output


def test_what_runtimes_ask_for_a_model_may_be_an_adapter(tmp_path: Path) -> None:
    lora = make_lora(tmp_path / "lora", tiny.make_checkpoint(tmp_path / "base"))
    done = CliRunner().invoke(locate, [str(lora)])
    assert read_merge_record(Path(json.loads(done.output)["path"])) is not None


def test_a_release_names_base_and_adapter_with_their_licences(tmp_path: Path) -> None:
    base = tiny.make_checkpoint(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    lora = make_lora(tmp_path / "lora", base)
    (lora / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    checkpoint = resolve(str(base), None, [AdapterRequest(str(lora), 0.5)]).path
    root = tmp_path / "artifacts"
    artifact = export_tiny(checkpoint, "gguf", "q8_0", root)
    report(root, [replace(entry("q8_0", Verdict.PASS, measured=measurement()), artifact=artifact)])
    planned = PlannedArtifact(artifact.path.relative_to(root).as_posix(), False)
    RunRecord((ModelRun(LABEL, str(checkpoint), (planned,)),), {}).save(root)
    (card,) = build(root, tmp_path / "release", "me").glob("**/README.md")
    text = card.read_text()
    assert "license:\n- apache-2.0\n- llama3.2\n" in text
    assert r"(licence: apache\-2.0) and" in text
    assert "weight 0.5 (licence: llama3.2)" in text
