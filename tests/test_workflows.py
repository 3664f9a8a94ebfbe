"""The workflows that users get: pinned, of least privilege, and without findings of zizmor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = sorted((Path(__file__).parent.parent / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")


def load(path: Path) -> dict[str, Any]:
    raw = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(raw, dict)
    return raw


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_nothing_is_permitted_by_default(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"]
        for step in job["steps"]:
            if "uses" in step:
                assert PINNED.fullmatch(step["uses"]), step["uses"]


def test_only_publishing_may_write() -> None:
    writers = [
        (path.name, name)
        for path in WORKFLOWS
        for name, job in load(path)["jobs"].items()
        if "write" in job["permissions"].values()
    ]
    assert writers == [("release.yml", "publish")]


def test_the_oldest_supported_python_and_all_up_to_the_newest_are_tested() -> None:
    project = (WORKFLOWS[0].parents[2] / "pyproject.toml").read_text("utf-8")
    (oldest,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', project, re.MULTILINE)
    (ci,) = (load(path) for path in WORKFLOWS if path.name == "ci.yml")
    tested = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tested == [f"3.{int(oldest) + step}" for step in range(len(tested))]
    assert len(tested) > 1


def test_zizmor_finds_nothing() -> None:
    zizmor = Path(sys.executable).parent / "zizmor"
    command = [zizmor, "--offline", "--quiet", "--persona", "pedantic", *WORKFLOWS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
