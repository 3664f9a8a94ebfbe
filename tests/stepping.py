"""`python -m tests.stepping JOB`: a step that takes no time, for tests of executors."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from edgeproof.steps.step import Kind, Needs, Step

MODULE = "tests.stepping"


def step(
    label: str,
    *inputs: Step,
    needs: Needs | None = None,
    code: dict[str, str] | None = None,
    versions: dict[str, str] | None = None,
    **params: Any,
) -> Step:
    """A step whose text is its label and those of its inputs.

    It may take `seconds`, `exit` with a code, `kill` itself, wait `until` a file is there, or have
    the text in another `file`.
    """
    keys = {f"i{number}": other.key for number, other in enumerate(inputs)}
    told = {"text": label, **params}
    return Step(
        Kind.EXPORT, label, "m", MODULE, told, keys, versions or {}, code or {}, needs or Needs()
    )


def main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    params = job["params"]
    if note := params.get("note"):
        with Path(note).open("a") as file:
            file.write(f"begin {params['text']}\n")
    time.sleep(params.get("seconds", 0))
    while "until" in params and not Path(params["until"]).exists():
        time.sleep(0.02)
    if params.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if params.get("exit"):
        sys.stderr.write("something else\nerror: it is said why\n")
        sys.exit(params["exit"])
    texts = [(Path(folder) / "text").read_text() for folder in job["inputs"].values()]
    made = Path(job["output"]) / params.get("file", "text")
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text("+".join([params["text"], *texts]))
    if note:
        with Path(note).open("a") as file:
            file.write(f"end {params['text']}\n")


if __name__ == "__main__":
    main(sys.argv[1])
