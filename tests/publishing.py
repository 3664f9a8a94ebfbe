"""Releases to publish, and the command that publishes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from click.testing import CliRunner, Result

from export.release.__main__ import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def publish(release: Path, *arguments: str | Path) -> str:
    done = run("publish", release, *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def build(root: Path, out: Path, namespace: str) -> Path:
    done = run("build", root, "--version", "1.0", "--out", out, "--namespace", namespace)
    assert done.exit_code == 0, done.output
    (release,) = out.iterdir()
    return release
