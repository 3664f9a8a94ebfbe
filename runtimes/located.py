"""Where a model's checkpoint lies: asked of the exporters, which nothing here imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.processes import run


@dataclass(frozen=True)
class Model:
    """A checkpoint folder on this machine, and what it is called.

    `found_by` is what finds it on any machine; None for a folder or file.
    """

    path: Path
    name: str
    repo: str | None
    revision: str | None
    found_by: str | None


def located(model: str, revision: str | None) -> Model:
    """Find a model as exporters do; a process of theirs does it, since nothing here imports them.

    Raises:
        InputError: it is not found, or nothing that can be exported.
    """
    command = [sys.executable, "-m", "export.locate"]
    command += ["--revision", revision] if revision else []
    done = run([*command, "--", model], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise InputError(last.removeprefix("error: ") or f"{model}: cannot be found")
    found = json.loads(done.stdout)
    return Model(
        Path(found["path"]),
        found["name"],
        found["repo"],
        found["revision"],
        found["found_by"],
    )
