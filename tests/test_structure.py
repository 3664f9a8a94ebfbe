"""The structure that docs/architecture.md promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from edgeproof import COMMANDS, main

ROOT = Path(__file__).parent.parent


def test_imports_go_down_the_picture() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_console_script_lists_and_loads_every_command() -> None:
    overview = CliRunner().invoke(main, ["--help"])
    assert overview.exit_code == 0
    for name in COMMANDS:
        assert name in overview.output
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert "\\b" not in result.output, f"{name}: examples run into each other"


def test_no_module_grows_beyond_400_lines() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    long = [name for name in tracked if len((ROOT / name).read_text().splitlines()) > 400]
    assert tracked
    assert long == []
