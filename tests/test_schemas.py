"""One rule for every file of ours with a schema: older ones are read, newer ones refused in a line.

tests/manifests/ has manifests as edgeproof 0.2.0 wrote them, before recipes had types: those of
`make_checkpoint` without arguments.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproof import __version__
from edgeproof.artifact import MANIFEST, Facts, Precision, VariantRecord, open_artifact
from edgeproof.artifact.run_record import (
    EXACT,
    RUN_RECORD,
    ModelRun,
    PlannedArtifact,
    RunRecord,
    load_run_record,
)
from edgeproof.artifact.run_record import SCHEMA as RUN_SCHEMA
from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.files.hashing import file_sha256
from edgeproof.files.schema import Schema
from edgeproof.verdicts import REPORT, read_report
from export.formats import load_format
from export.plan import load_plan
from export.release.record import read_record
from runtimes.parity.report.json import write_json
from tests.exported import export_tiny
from tests.parity_results import usual_result
from tests.tiny import make_checkpoint

OLD = Path(__file__).parent / "manifests"
RECORDS = {
    "gguf-f16": VariantRecord(
        "gguf",
        "f16",
        Precision.FP16,
        {"linear": "F16", "embedding": "F16", "head": "F16", "norm": "F32"},
        Facts(),
    ),
    "onnx-q4f16-residual0.25": VariantRecord(
        "onnx",
        "q4f16-residual0.25",
        Precision.LOW_BIT,
        {
            "linear": "q4-asymmetric",
            "embedding": "float16",
            "norm": "float16",
            "kv_cache": "float16",
            "residual_scale": "0.25",
        },
        Facts("float16", residual_scale=0.25),
    ),
    "onnx-int8": VariantRecord(
        "onnx",
        "int8",
        Precision.EIGHT_BIT,
        {"linear": "int8", "embedding": "q8", "norm": "float32", "kv_cache": "float32"},
        Facts("float32", dynamic=True),
    ),
    "mlc-q4f32_1-raw-f32": VariantRecord(
        "mlc",
        "q4f32_1-raw-f32",
        Precision.LOW_BIT,
        {
            "quantization": "q4f32_1",
            "linear": "q4f32_1",
            "embedding": "q4f32_1",
            "norm": "float32",
            "kv_cache": "float32",
            "raw-f32": "yes",
        },
        Facts("float32"),
    ),
}
# What the same options give now.
MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gguf-f16": ("gguf", "f16", {}),
    "onnx-q4f16-residual0.25": ("onnx", "q4f16", {"residual_scale": 0.25}),
    "onnx-int8": ("onnx", "int8", {}),
    "mlc-q4f32_1-raw-f32": ("mlc", "q4f32_1", {"raw_f32": True}),
}


def old_manifest(name: str, folder: Path) -> Path:
    """The recorded manifest, in an artifact's folder."""
    folder.mkdir(exist_ok=True)
    shutil.copy(OLD / f"schema2-{name}.json", folder / MANIFEST)
    return folder


@pytest.mark.parametrize("name", RECORDS)
def test_an_old_manifest_is_read_and_hashed_as_it_lies_there(tmp_path: Path, name: str) -> None:
    artifact = open_artifact(old_manifest(name, tmp_path))
    assert artifact.manifest.variant == RECORDS[name]
    assert artifact.manifest.schema == 2
    assert artifact.manifest.tools["edgeproof"] == "0.2.0"
    assert artifact.sha256 == file_sha256(OLD / f"schema2-{name}.json")


@pytest.mark.parametrize("name", RECORDS)
def test_the_facts_of_an_old_manifest_are_those_of_the_recipe_now(name: str) -> None:
    form, dtype, options = MADE[name]
    variant = load_format(form).variant(dtype, **options)
    made = VariantRecord.of(variant)
    assert (made.facts, made.name, made.precision) == (
        RECORDS[name].facts,
        RECORDS[name].name,
        RECORDS[name].precision,
    )


def test_a_traced_graph_of_an_old_manifest_is_known_as_one(tmp_path: Path) -> None:
    path = old_manifest("onnx-int8", tmp_path) / MANIFEST
    raw = json.loads(path.read_text())
    raw["variant"]["storage"] = [["linear", "float32"], ["engine", "optimum"]]
    path.write_text(json.dumps(raw))
    assert open_artifact(tmp_path).manifest.variant.facts == Facts(traced=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda variant: variant.pop("facts"),
        lambda variant: variant["facts"].update(more=1),
        lambda variant: variant["facts"].update(residual_scale="0.5"),
        lambda variant: variant["facts"].update(traced=1),
        lambda variant: variant["facts"].update(activations=16),
        lambda variant: variant.update(recipe=[1]),
    ],
)
def test_a_manifest_with_other_facts_is_refused(
    checkpoint_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = export_tiny(checkpoint_folder, "mlc", "q0f16", tmp_path).path
    raw = json.loads((folder / MANIFEST).read_text())
    change(raw["variant"])
    (folder / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(InputError, match="not an edgeproof manifest"):
        open_artifact(folder)


def test_the_recipe_keeps_its_types_in_the_manifest(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    options = {"tensor_type": ["attn_v=q8_0"], "split_max_size": "100K"}
    artifact = export_tiny(checkpoint_folder, "gguf", "f16", tmp_path, **options)
    text = (artifact.path / MANIFEST).read_text("utf-8")
    assert artifact.manifest.to_json() == text
    assert json.loads(text)["variant"]["recipe"] == {
        "rounding": {"method": "auto"},
        "linear": "F16",
        "head": "F16",
        "pure": False,
        "patterns": [["attn_v", "Q8_0"]],
        "splits": {"max_bytes": 100_000},
    }


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def test_an_old_artifact_is_shown_compared_and_released_and_never_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "cache"))
    root, plan = tmp_path / "artifacts", tmp_path / "plan.toml"
    plan.write_text('[[variant]]\nformat = "gguf"\ndtype = "f16"\n')
    export = ("export", "--plan", plan, "-m", make_checkpoint(tmp_path / "tiny"), "-o", root)
    assert run(*export).exit_code == 0
    folder = old_manifest("gguf-f16", root / "tiny/gguf/f16")
    old = open_artifact(folder)
    old.check()  # the bytes are those that edgeproof 0.2.0 wrote

    done = run("status", root)
    assert "gguf f16" in done.stdout
    assert "stale: " in done.stdout

    done = run("parity", "--root", root, "--budget", "fast", "--no-footprint")
    assert done.exit_code == 0, done.output
    (compared,) = read_report(root / "tiny" / REPORT).compared
    assert compared.manifest == old.sha256

    done = run("release", "build", root, "--version", "1.0", "--out", tmp_path / "dist")
    assert done.exit_code == 0, done.output
    (release,) = (tmp_path / "dist").iterdir()
    (manifest,) = release.glob("*/edgeproof/f16.json")
    assert manifest.read_bytes() == (folder / MANIFEST).read_bytes()
    assert run("release", "verify", release).exit_code == 0

    done = run(*export)
    assert done.exit_code == 0, done.output
    assert "reused" not in done.output
    new = open_artifact(folder)
    assert (new.manifest.schema, new.manifest.outputs) == (3, old.manifest.outputs)
    assert "reused" in run(*export).output


def test_an_old_manifest_alone_makes_an_artifact_stale(tmp_path: Path) -> None:
    (tmp_path / "tiny/gguf").mkdir(parents=True)
    path = old_manifest("gguf-f16", tmp_path / "tiny/gguf/f16") / MANIFEST
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "tools": {**raw["tools"], "edgeproof": __version__}}))
    (found,) = json.loads(run("status", tmp_path, "--json").stdout)
    assert found["stale"] == "its edgeproof.json has schema 2, not 3"


def report(folder: Path) -> Path:
    write_json(folder / REPORT, usual_result())
    return folder / REPORT


def run_record(folder: Path) -> Path:
    RunRecord((), {}).save(folder)
    return folder / "run.json"


def release_record(folder: Path) -> Path:
    keys: dict[str, Any] = {"version": "1", "repositories": [], "variants": [], "archives": {}}
    keys["model"] = {"name": "Tiny", "inputs": [], "license": None}
    keys["parity"] = {"runtime": "PyTorch", "text": "default", "positions": 1}
    raw = {"schema": 1, "edgeproof": __version__, **keys, "files": []}
    (folder / "manifest.json").write_text(json.dumps(raw))
    return folder / "manifest.json"


def old_f16(folder: Path) -> Path:
    return old_manifest("gguf-f16", folder) / MANIFEST


Names = Callable[[dict[str, Any], str], object]
FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], Names]] = {
    "manifest": (
        old_f16,
        lambda path: open_artifact(path.parent),
        lambda raw, version: raw["tools"].update(edgeproof=version),
    ),
    "parity": (
        report,
        read_report,
        lambda raw, version: raw["environment"]["versions"].update(edgeproof=version),
    ),
    "run": (
        run_record,
        lambda path: load_run_record(path.parent),
        lambda raw, version: raw.update(edgeproof=version),
    ),
    "release": (
        release_record,
        read_record,
        lambda raw, version: raw.update(edgeproof=version),
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("version", "writer"),
    [("9.8.7", "edgeproof 9.8.7"), ("9\nno version", "a newer edgeproof")],
    ids=["known", "unknown"],
)
def test_a_newer_file_is_refused_with_the_version_that_reads_it(
    tmp_path: Path, kind: str, version: str, writer: str
) -> None:
    make, read, name = FILES[kind]
    path = make(tmp_path)
    read(path)
    raw = json.loads(path.read_text("utf-8"))
    name(raw, version)
    path.write_text(json.dumps({**raw, "schema": 99}))
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: written by {writer} (schema 99), this is {__version__}; upgrade edgeproof"
    )


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("schema", ["3", None, True, 1.0])
def test_a_schema_that_is_no_number_is_refused(tmp_path: Path, kind: str, schema: object) -> None:
    make, read, _ = FILES[kind]
    path = make(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "schema": schema}))
    with pytest.raises(
        InputError, match=r"damaged, not .*\(schema: a whole number expected, .* found\)"
    ):
        read(path)


def test_what_is_too_old_says_how_it_is_made_anew() -> None:
    schema = Schema(current=3, oldest=2, again="export it again")
    assert [schema.check(number, "x") for number in (2, 3)] == [2, 3]
    with pytest.raises(InputError, match=r"^x: schema 1, older than 2; export it again$"):
        schema.check(1, "x")


def test_a_plan_may_say_its_schema(tmp_path: Path) -> None:
    plan, rest = tmp_path / "edgeproof.toml", '[[variant]]\nformat = "gguf"\ndtype = "f16"\n'
    plan.write_text(rest)
    plain = load_plan(plan)
    plan.write_text(f"schema = 1\n{rest}")
    assert load_plan(plan) == plain
    plan.write_text(f'schema = 2\nnew = "key"\n{rest}')
    with pytest.raises(InputError, match=r"a newer edgeproof \(schema 2\), this is .*; upgrade"):
        load_plan(plan)
    plan.write_text(f'schema = "1"\n{rest}')
    with pytest.raises(InputError, match="schema must be a number"):
        load_plan(plan)


def test_a_field_more_in_run_json_is_another_schema() -> None:
    """Its keys are exact: an edgeproof that does not know one calls the file damaged."""
    kinds = (RunRecord, ModelRun, *EXACT)
    names = {kind.__name__: {item.name for item in fields(kind)} for kind in kinds}
    assert (RUN_SCHEMA.current, names) == (
        3,
        {
            "RunRecord": {"models", "gates"},
            "ModelRun": {"label", "checkpoint", "artifacts", "recovered"},
            "PlannedArtifact": {"path", "allow_degraded", "runtime"},
            "PlannedVariant": {
                "path", "allow_degraded", "runtime", "format", "dtype", "strict", "options",
            },
            "Origin": {"name", "repo", "revision", "found_by"},
            "Goal": {"format", "bits", "max_mb", "gate", "tokens", "distill", "optional"},
        },
    )  # fmt: skip


def test_run_json_of_before_runtimes_is_read(tmp_path: Path) -> None:
    artifacts = (PlannedArtifact("m/gguf/q8_0", True),)
    record = RunRecord((ModelRun("m", "/m", artifacts),), {})
    record.save(tmp_path)
    raw = json.loads((tmp_path / RUN_RECORD).read_text("utf-8"))
    del raw["models"][0]["artifacts"][0]["runtime"]
    (tmp_path / RUN_RECORD).write_text(json.dumps({**raw, "schema": 2}))
    assert load_run_record(tmp_path) == record
