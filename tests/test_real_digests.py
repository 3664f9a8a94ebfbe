"""`make verify`: the real model's files in every type are the recorded ones, byte by byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.digests import real, record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
RECORDED = record.read(record.REAL)


def check(group: str, found: record.Artifacts) -> None:
    lines = record.differences(RECORDED, group, found)
    assert not lines, "\n".join(lines)


def test_the_default_plan(real_artifacts: Path) -> None:
    check(real.PLAN, real.plan_digests(real_artifacts))


def test_all_other_types() -> None:
    check(real.STREAMED, real.streamed_digests())


def test_a_k_quant_where_no_processor_has_a_say(tmp_path: Path) -> None:
    command = ["export.gguf", "--dtype", real.K_QUANT, "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)
    check(real.K_QUANT, real.k_quant_digests(tmp_path))
