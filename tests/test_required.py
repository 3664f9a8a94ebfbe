"""What `make verify` cannot run fails, unless it is named as allowed to be missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SUITE = """
import pytest
from tests.required import missing

@pytest.fixture
def gpu():
    missing("webgpu", "no driver: install one")

@pytest.mark.slow
def test_slow_by_fixture(gpu): pass

@pytest.mark.slow
def test_slow_by_itself(): missing("browser", "no Chromium")

@pytest.mark.slow
@pytest.mark.skipif(True, reason="model-library: none is given")
def test_slow_library(): pass

@pytest.mark.slow
def test_slow_unnamed(): pytest.importorskip("no_such_package")

@pytest.mark.slow
@pytest.mark.xfail(strict=True)
def test_slow_expected(): assert False

def test_fast(gpu): pass
"""


def verdicts(folder: Path, allowed: str) -> dict[str, str]:
    """How pytest with the hook judges each test of SUITE."""
    (folder / "test_suite.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-p", "tests.required", "-o", "markers=slow"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "EDGEPROOF_ALLOW_MISSING": allowed},
    )  # fmt: skip
    assert "webgpu" in allowed or "webgpu: no driver: install one" in done.stdout
    return dict(re.findall(r"::test_(\w+) ([A-Z]+)", done.stdout))


@pytest.mark.parametrize(
    ("allowed", "fixture", "itself"),
    [
        ("", "ERROR", "FAILED"),
        ("webgpu", "SKIPPED", "FAILED"),
        ("browser, webgpu", "SKIPPED", "SKIPPED"),
    ],
)
def test_a_slow_test_is_skipped_only_for_what_is_named(
    tmp_path: Path, allowed: str, fixture: str, itself: str
) -> None:
    assert verdicts(tmp_path, allowed) == {
        "slow_by_fixture": fixture,
        "slow_by_itself": itself,
        "slow_library": "SKIPPED",
        "slow_unnamed": "FAILED",
        "slow_expected": "XFAIL",
        "fast": "SKIPPED",
    }


def test_no_module_with_slow_tests_is_left_out_as_a_whole() -> None:
    """pytest collects no test of such a module, so that none of them fails."""
    whole = re.compile(r"^[\w. =]*pytest\.importorskip\(|allow_module_level", re.MULTILINE)
    texts = {path: path.read_text("utf-8") for path in TESTS.rglob("test_*.py")}
    slow = [path for path, text in texts.items() if "mark.slow" in text and path != Path(__file__)]
    assert [path.name for path in slow if whole.search(texts[path])] == []
