"""`make verify-webgpu`: the whole real model in float16 on WebGPU, by the gate of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.sources import resolve

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("webgpu_command")]

ROOT = Path(__file__).parent.parent
MODEL = "SmolLM2-135M-Instruct"
# A software GPU takes a tenth of a second for each position of a long text, two seconds for a step.
FEW = "300"
# Half of them are clear: the gates of float16 count 1,000.
ENOUGH = "2000"


def report_of(dtype: str, folder: Path, positions: str, *options: str) -> dict[str, Any]:
    run = [sys.executable, "-m"]
    subprocess.run([*run, "export.onnx", "--dtype", dtype, "--out", folder], cwd=ROOT, check=True)
    result = subprocess.run(
        [
            *run, "runtimes.parity", folder / MODEL / "onnx" / dtype, "--runtime", "webgpu",
            "--positions", positions, "--checkpoint", resolve("bundled", None).path,
            "--json", folder / "parity.json", *options,
        ],
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert result.returncode == 0
    report: dict[str, Any] = json.loads((folder / "parity.json").read_text())
    (item,) = report["artifacts"]
    assert "WebGPU" in item["measurement"]["runtime"]
    assert item["measurement"]["positions"] >= int(positions)
    return report


def test_float16_on_webgpu_passes_its_gate(tmp_path: Path) -> None:
    report = report_of("fp16", tmp_path, ENOUGH)
    assert report["artifacts"][0]["verdict"] == "PASS"
    assert report["reference"]["fp16_headroom_squared"] < 1 < report["reference"]["fp16_headroom"]


def test_four_bit_weights_on_webgpu_cost_what_they_cost_in_pytorch(tmp_path: Path) -> None:
    (item,) = report_of("q4f16", tmp_path, FEW, "--allow-degraded")["artifacts"]
    assert item["verdict"] == "DEGRADED"
    weights = item["measurement"]["weights"]["mean_kl"]["value"]
    assert weights > 0.1
    assert abs(item["measurement"]["arithmetic_kl"]) < 0.1 * weights
