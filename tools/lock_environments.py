"""Write the hashed pins of the environments that are made on demand: `make lock`.

Reads each requirements*.in, resolves it for every system and Python by uv (`UV`, or uv on the
path), and writes requirements*.txt beside it. What only PyTorch's builds for NVIDIA need, PyPI's
Linux wheel among them, goes into a file of its own: a CPU build does without.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Input → the oldest Python that its pins support.
INPUTS = {
    "export/onnx/traced/requirements.in": "3.11",
    "tests/consumers/requirements-genai.in": "3.11",
    "tests/consumers/requirements-s3.in": "3.10",
}
CUDA = ROOT / "export/onnx/traced/requirements-cuda.txt"
NVIDIA = ("cuda-", "nvidia-", "triton")
# torch 2.13.0+cpu for CPython 3.11 on Linux x86-64, which PyPI does not have.
CPU_BUILDS = {"torch==2.13.0": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}
HEAD = "# Resolved from {} by tools/lock_environments.py; do not edit.\n"
BLOCK = re.compile(r"^[\w.-]+==[^\n]*(?:\n {4}[^\n]*)*", re.MULTILINE)


def main() -> None:
    """Resolve all inputs; the CUDA part is the same for all, since torch is."""
    for name, python in INPUTS.items():
        blocks = [with_cpu_build(block) for block in resolve(ROOT / name, python)]
        cuda = [block for block in blocks if block.startswith(NVIDIA)]
        write((ROOT / name).with_suffix(".txt"), name, [b for b in blocks if b not in cuda])
        if cuda:
            write(CUDA, name, cuda)


def resolve(requirements: Path, python: str) -> list[str]:
    """The closure: a pin, its marker and its hashes each."""
    command = [os.environ.get("UV", "uv"), "pip", "compile", "--quiet", "--universal"]
    command += ["--python-version", python, "--no-python-downloads", "--generate-hashes"]
    command += ["--no-annotate", "--no-header", str(requirements)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return BLOCK.findall(found.stdout)


def with_cpu_build(block: str) -> str:
    """The block with the hash of a CPU build, where there is one."""
    digest = CPU_BUILDS.get(block.split(maxsplit=1)[0])
    return f"{block} \\\n    --hash=sha256:{digest}" if digest else block


def write(path: Path, source: str, blocks: list[str]) -> None:
    """A file as `pip install --require-hashes` reads it."""
    path.write_text(HEAD.format(source) + "\n".join(blocks) + "\n")


if __name__ == "__main__":
    main()
