"""`make verify`: the real SmolLM2-135M-Instruct through every exporter and every real runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import open_artifact
from edgeproof.files.atomic import TEMPORARY
from tests.measured import measured
from tests.stand_in import make_stand_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MODEL = "SmolLM2-135M-Instruct"
FP32 = {("onnx", "fp32"), ("gguf", "f32")}
FP16 = {("onnx", "fp16"), ("gguf", "f16"), ("mlc", "q0f16")}
BF16 = {("gguf", "bf16"), ("mlc", "q0f32")}
EIGHT_BIT = {("onnx", "q8"), ("gguf", "q8_0")}
FOUR_BIT = {
    ("onnx", "q4"),
    ("onnx", "q4f16"),
    ("gguf", "q4_0"),
    ("gguf", "q4_1"),
    ("mlc", "q4f16_1"),
}


@pytest.fixture(scope="module")
def report(real_artifacts: Path) -> dict[tuple[str, str], dict[str, Any]]:
    raw = json.loads((real_artifacts / MODEL / "parity.json").read_text())
    assert raw["accepted"] is True
    return {(item["format"], item["variant"]): item for item in raw["artifacts"]}


def value(item: dict[str, Any], metric: str) -> float:
    return float(item["measurement"]["estimates"][metric]["value"])


def test_the_report_covers_the_default_plan(
    report: dict[tuple[str, str], dict[str, Any]],
) -> None:
    assert set(report) == FP32 | FP16 | BF16 | EIGHT_BIT | FOUR_BIT
    for item in report.values():
        m = item["measurement"]
        assert m["whole_text"] or item["verdict"] == "DEGRADED", "only what is bad stops early"
        assert m["positions"] >= (2000 if m["whole_text"] else 400)
        assert m["tokenizer_strings"] >= 5000
        assert m["tokenizer_mismatches"] == 0


@pytest.mark.parametrize("key", sorted(FP32 | FP16 | BF16 | EIGHT_BIT))
def test_exports_of_eight_bits_and_more_pass(
    report: dict[tuple[str, str], dict[str, Any]], key: tuple[str, str]
) -> None:
    assert report[key]["verdict"] == "PASS", report[key]["reasons"]


@pytest.mark.parametrize("key", sorted(FP16))
def test_fp16_is_essentially_exact(
    report: dict[tuple[str, str], dict[str, Any]], key: tuple[str, str]
) -> None:
    assert value(report[key], "mean_kl") <= 2e-4
    assert value(report[key], "clear_top1") >= 0.999


@pytest.mark.parametrize("key", sorted(FOUR_BIT))
def test_four_bit_damage_is_flagged(
    report: dict[tuple[str, str], dict[str, Any]], key: tuple[str, str]
) -> None:
    item = report[key]
    assert item["verdict"] == "DEGRADED"
    assert item["allow_degraded"] is True
    assert value(item, "mean_kl") >= 0.1
    assert any("mean_kl" in reason for reason in item["reasons"])
    assert 4 < item["weights"]["effective_bpw"] < 8


def test_tvm_adds_nothing_to_the_error_of_four_bit_weights(
    report: dict[tuple[str, str], dict[str, Any]],
) -> None:
    """PyTorch on the weights that the NumPy reader dequantises has the same KL, where both ran."""
    measured = report["mlc", "q4f16_1"]["measurement"]
    assert abs(measured["arithmetic_kl"]) <= 0.02 * measured["weights"]["mean_kl"]["value"]


def test_the_models_answer_through_every_runtime_agrees_at_full_precision(
    report: dict[tuple[str, str], dict[str, Any]],
) -> None:
    for key in FP32 | FP16:
        greedy = report[key]["measurement"]["greedy"]
        assert greedy["identical"] >= greedy["prompts"] - 1, key


def test_a_second_run_rebuilds_nothing(real_artifacts: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in real_artifacts.rglob("edgeproof.json")}
    result = subprocess.run(
        [sys.executable, "-m", "export", "--out", str(real_artifacts), "--no-recover"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert result.stdout.count("unchanged, reused") == len(before) == 14
    assert before == {
        path: path.stat().st_mtime_ns for path in real_artifacts.rglob("edgeproof.json")
    }


def test_a_required_gate_that_fails_exits_1(real_artifacts: Path, tmp_path: Path) -> None:
    record = json.loads((real_artifacts / "run.json").read_text())
    (model,) = record["models"]
    result = subprocess.run(
        [
            sys.executable, "-m", "runtimes.parity", str(real_artifacts / MODEL / "gguf" / "q4_0"),
            "--checkpoint", model["checkpoint"], "--json", str(tmp_path / "parity.json"),
        ],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert "DEGRADED" in result.stderr
    assert json.loads((tmp_path / "parity.json").read_text())["accepted"] is False


@pytest.mark.parametrize(
    ("module", "dtype", "megabytes"),
    [
        ("export.onnx", "fp16", 500),
        ("export.gguf", "f16", 500),
        ("export.mlc", "q0f16", 350),
        ("export.mlc", "q4f16_0", 350),
        ("export.mlc", "q4f16_1", 350),
        ("export.mlx", "bf16", 350),
    ],
)
def test_exporting_the_real_model_needs_little_memory(
    tmp_path: Path, module: str, dtype: str, megabytes: int
) -> None:
    command = [sys.executable, "-m", module, "--dtype", dtype, "--out", tmp_path]
    assert measured(command, ROOT).peak_mb <= megabytes


@pytest.mark.parametrize(
    ("module", "dtype"), [("export.onnx", "fp16"), ("export.gguf", "f16"), ("export.mlc", "q0f16")]
)
def test_kill_9_while_weights_are_written_leaves_nothing_and_a_rerun_gives_the_same_bytes(
    real_artifacts: Path, tmp_path: Path, module: str, dtype: str
) -> None:
    command = [sys.executable, "-m", module, "--dtype", dtype, "--out", tmp_path]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while not any(path.stat().st_size > 1 << 20 for path in unfinished_files(tmp_path)):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
        process.kill()
    assert not list(tmp_path.rglob("edgeproof.json"))
    subprocess.run(command, cwd=ROOT, check=True)
    assert not unfinished_files(tmp_path)
    (manifest,) = tmp_path.rglob("edgeproof.json")
    relative = manifest.relative_to(tmp_path)
    assert relative.parts[:2] == (MODEL, module.removeprefix("export."))
    assert (tmp_path / relative).read_bytes() == (real_artifacts / relative).read_bytes()
    open_artifact((tmp_path / relative).parent).check()


def unfinished_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"*/*/{TEMPORARY}*/**/*") if path.is_file()]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stand-in")
    yield make_stand_in(folder / "SmolLM-1.7B-shaped")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("module", "dtype", "megabytes"),
    [
        ("export.onnx", "fp16,q8,q4", 1000),
        ("export.gguf", "f16", 1000),
        ("export.mlc", "q0f16,q4f16_1", 1000),
        ("export.mlx", "bf16", 350),
    ],
)
def test_a_model_of_1_7b_exports_below_its_limit(
    stand_in: Path, tmp_path: Path, module: str, dtype: str, megabytes: int
) -> None:
    env = {**os.environ, "EDGEPROOF_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", module, "-m", stand_in, "-d", dtype, "-o", tmp_path]
    assert measured(command, ROOT, env).peak_mb < megabytes
