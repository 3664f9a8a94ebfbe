"""Exports that write the files of another one: which of them a release has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result

from export.release.record import read_record
from tests.exported import export_tiny
from tests.publishing import run
from tests.releases import LABEL

NAME = "llama-0M-1.0"


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """Artifacts that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "artifacts"))


def build(root: Path, out: Path, *arguments: str) -> Result:
    return run("build", root, "--version", "1.0", "--out", out, "--no-archives", *arguments)


def edit_report(root: Path, variant: str, **changes: object) -> None:
    path = root / LABEL / "parity.json"
    raw = json.loads(path.read_text("utf-8"))
    (item,) = (item for item in raw["artifacts"] if item["variant"] == variant)
    item.update(changes)
    path.write_text(json.dumps(raw))


def with_twin(root: Path, embedding: str = "fp16", **changes: object) -> str:
    """Another export that writes the files of ONNX q8, reported as that one but for changes."""
    checkpoint = json.loads((root / "run.json").read_text())["models"][0]["checkpoint"]
    other = export_tiny(Path(checkpoint), "onnx", "q8", root, embedding=embedding)
    path = root / LABEL / "parity.json"
    raw = json.loads(path.read_text("utf-8"))
    (item,) = (item for item in raw["artifacts"] if item["variant"] == "q8")
    files = [vars(output) for output in other.manifest.outputs]
    name, digest = other.manifest.variant.name, other.sha256
    twin = {**item, "variant": name, "files": files, "manifest": digest, **changes}
    raw["artifacts"].append(twin)
    path.write_text(json.dumps(raw))
    return name


def test_variants_that_write_one_file_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    name = with_twin(root)
    done = build(root, tmp_path / "dist")
    assert done.exit_code == 2
    assert "model_quantized.onnx" in done.output
    assert build(root, tmp_path / "dist", "--exclude", f"onnx/{name}").exit_code == 0


@pytest.mark.parametrize(
    ("plain", "recovered", "wins"),
    [("DEGRADED", "PASS", True), ("DEGRADED", "INCONCLUSIVE", True), ("PASS", "DEGRADED", False)],
)
def test_of_a_plain_and_a_recovered_file_of_one_name_the_better_is_released(
    root: Path, tmp_path: Path, plain: str, recovered: str, wins: bool
) -> None:
    name = with_twin(root, verdict=recovered, recovered={"tokens": 512}, allow_degraded=True)
    edit_report(root, "q8", verdict=plain, allow_degraded=True)
    done = build(root, tmp_path)
    assert done.exit_code == 0, done.output
    best, other = (name, "q8") if wins else ("q8", name)
    assert f"left out: onnx {other} (onnx {best} has its file names, and is better)" in done.output
    released = {item["variant"] for item in read_record(tmp_path / NAME)["variants"]}
    assert best in released
    assert other not in released
    # What is left out by name clashes with nothing.
    again = build(root, tmp_path / "other", "--exclude", f"onnx/{best}")
    assert again.exit_code == 0
    assert "left out" not in again.output


def test_of_equal_verdicts_the_smaller_divergence_is_released(root: Path, tmp_path: Path) -> None:
    name = with_twin(root, verdict="DEGRADED", recovered={"tokens": 512}, allow_degraded=True)
    edit_report(root, "q8", verdict="DEGRADED", allow_degraded=True)
    path = root / LABEL / "parity.json"
    raw = json.loads(path.read_text("utf-8"))
    (item,) = (item for item in raw["artifacts"] if item["variant"] == "q8")
    item["measurement"]["estimates"]["mean_kl"]["value"] *= 2
    path.write_text(json.dumps(raw))
    assert f"left out: onnx q8 (onnx {name}" in build(root, tmp_path).output


@pytest.mark.parametrize(
    ("verdicts", "best"),
    [
        # Plain, plain with another embedding, recovered.
        (("DEGRADED", "INCONCLUSIVE", "PASS"), 2),
        (("DEGRADED", "PASS", "INCONCLUSIVE"), 1),
        (("PASS", "DEGRADED", "INCONCLUSIVE"), 0),
    ],
)
def test_of_three_files_of_one_name_the_best_supersedes_both_others(
    root: Path, tmp_path: Path, verdicts: tuple[str, str, str], best: int
) -> None:
    """None is left out for one that is left out itself."""
    plain = with_twin(root, verdict=verdicts[1], allow_degraded=True)
    recovered = with_twin(
        root, "fp32", verdict=verdicts[2], recovered={"tokens": 512}, allow_degraded=True
    )
    edit_report(root, "q8", verdict=verdicts[0], allow_degraded=True)
    done = build(root, tmp_path)
    assert done.exit_code == 0, done.output
    names = ["q8", plain, recovered]
    kept = names.pop(best)
    for name in names:
        assert f"left out: onnx {name} (onnx {kept} has its file names, and is" in done.output
    released = {item["variant"] for item in read_record(tmp_path / NAME)["variants"]}
    assert kept in released
    assert not released & {*names}


def test_files_of_one_name_in_repositories_of_their_own_are_all_released(
    root: Path, tmp_path: Path
) -> None:
    """MLC's variants all have params_shard_0.bin, each in a repository for itself."""
    checkpoint = json.loads((root / "run.json").read_text())["models"][0]["checkpoint"]
    other = export_tiny(Path(checkpoint), "mlc", "q4f16_1", root)
    path = root / LABEL / "parity.json"
    raw = json.loads(path.read_text("utf-8"))
    (item,) = (item for item in raw["artifacts"] if item["format"] == "mlc")
    files = [vars(output) for output in other.manifest.outputs]
    twin = {"variant": "q4f16_1", "files": files, "manifest": other.sha256}
    raw["artifacts"].append({**item, **twin, "recovered": {"tokens": 512}})
    path.write_text(json.dumps(raw))
    done = build(root, tmp_path)
    assert done.exit_code == 0, done.output
    assert "left out" not in done.output
    released = {item["variant"] for item in read_record(tmp_path / NAME)["variants"]}
    assert {"q0f16", "q4f16_1"} <= released


def test_two_models_of_one_name_do_not_replace_each_other(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / LABEL, root / "other")
    (model,) = json.loads((root / "run.json").read_text())["models"]
    done = build(root, tmp_path / "dist", "--checkpoint", model["checkpoint"])
    assert done.exit_code == 2
    assert "are both of a model" in done.output
    assert all(str(root / name) in done.output for name in (LABEL, "other"))
    assert not [*(tmp_path / "dist").glob("*")]
    assert build(root, tmp_path / "dist", "--model", LABEL).exit_code == 0
