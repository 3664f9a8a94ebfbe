"""`make verify`: what fast tests leave out where it is missing is here, or named as missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_webgpu_computes_in_float16(webgpu_command: str) -> None:
    assert webgpu_command.startswith("WebGPU with shader-f16: ")


def test_chromium_runs(chromium: Path) -> None:
    done = subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True)
    assert "Chrom" in done.stdout


def test_the_libraries_of_pages_are_complete(web_packages: Path) -> None:
    from runtimes.browser.packages import FILES, NOTICE

    assert {*FILES, NOTICE} <= {path.name for path in web_packages.iterdir()}
