"""`edgeproof run` on a real, tiny model: what comes out is what the two commands give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact.run_record import load_run_record
from runtimes.parity.steps.timed import untimed
from tests.caches import new_cache
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parent.parent
PLAN = """
[[variant]]
format = "onnx"
dtype = "q4"
allow-degraded = true

[[variant]]
format = "gguf"
dtype = "f16"
"""
# Rows of 64 values are no whole blocks of K-quants.
REFUSED = PLAN + '[[variant]]\nformat = "gguf"\ndtype = "q4_k_m"\nstrict = true\n'
FEW = ("--budget=fast", "--threads=1", "--no-html")


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "EDGEPROOF_CACHE": str(place / "cache"),
        "EDGEPROOF_WATCH": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=place, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def report(root: Path) -> dict[str, Any]:
    text = (root / "tiny" / "parity.json").read_text()
    found: dict[str, Any] = json.loads(text.replace(f"{root.name}/", "ROOT/"))
    return untimed(found)


@pytest.mark.slow
def test_a_run_gives_what_the_two_commands_give_and_goes_on(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "tiny")
    new_cache(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "refused.toml").write_text(REFUSED)
    serial = command(tmp_path, "export", "--plan=plan.toml", "-m", "tiny", "-o", "serial")
    assert serial.returncode == 0, serial.stderr
    serial = command(tmp_path, "runtimes.parity", "--root=serial", *FEW)
    assert serial.returncode == 0, serial.stderr
    given = ("-m", "tiny", "-o", "out", "--workers=2", *FEW)
    run = command(tmp_path, "edgeproof", "run", "plan.toml", *given)
    assert run.returncode == 0, run.stderr
    assert "7 steps: 7 done" in run.stderr
    assert report(tmp_path / "out") == report(tmp_path / "serial")
    assert load_run_record(tmp_path / "out") == load_run_record(tmp_path / "serial")
    for manifest in (tmp_path / "serial").rglob("edgeproof.json"):
        same = tmp_path / "out" / manifest.relative_to(tmp_path / "serial")
        assert same.read_bytes() == manifest.read_bytes()
    again = command(tmp_path, "edgeproof", "run", "refused.toml", *given)
    assert again.returncode == 1
    assert "10 steps: 3 failed, 7 stored" in again.stderr
    found = json.loads((tmp_path / "out" / "tiny" / "parity.json").read_text())
    assert len(found["artifacts"]) == 2
    (lost,) = found["unreadable"]
    assert "q4_k_m" in lost["folder"]
    assert "leave out --strict" in lost["reason"]
