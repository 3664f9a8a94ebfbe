"""`make verify-webgpu`: the whole real model in float16 on WebGPU, by the gate of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.sources import resolve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MODEL = "SmolLM2-135M-Instruct"
# A software GPU takes a tenth of a second for each position of a long text, two seconds for a step.
POSITIONS = "300"


def test_float16_on_webgpu_passes_its_gate(tmp_path: Path) -> None:
    run = [sys.executable, "-m"]
    subprocess.run(
        [*run, "export.onnx", "--dtype", "fp16", "--out", tmp_path], cwd=ROOT, check=True
    )
    result = subprocess.run(
        [
            *run, "runtimes.parity", tmp_path / MODEL / "onnx" / "fp16", "--runtime", "webgpu",
            "--positions", POSITIONS, "--checkpoint", resolve("bundled", None).path,
            "--json", tmp_path / "parity.json",
        ],
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert result.returncode == 0
    report = json.loads((tmp_path / "parity.json").read_text())
    (item,) = report["artifacts"]
    assert item["verdict"] == "PASS"
    assert "WebGPU" in item["measurement"]["runtime"]
    assert item["measurement"]["positions"] >= int(POSITIONS)
    assert report["reference"]["fp16_headroom_squared"] < 1 < report["reference"]["fp16_headroom"]
