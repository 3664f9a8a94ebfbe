"""Python environments of their own, made on demand: for tools whose pins exclude ours.

Invariant: an environment is used only after pip has finished it; one that was interrupted is made
again from nothing. Its folder is named after its pins, so changed pins make another.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.atomic import storage_errors
from edgeproof.files.cache import cache_folder
from edgeproof.files.once import once

READY = ".ready"
BIN = "Scripts" if os.name == "nt" else "bin"


def isolated_environment(name: str, requirements: Path, say: Callable[[str], None]) -> Path:
    """The folder of the programs (`bin`) of an environment with exactly these pins.

    It lies in the user's cache. Where it has to be made, `say` is told so first; other processes
    that want it wait.

    Raises:
        InputError: pip or venv failed (no network, no wheel for this Python), or the disk is full.
    """
    pins = requirements.read_bytes()
    version = "{}.{}".format(*sys.version_info)
    digest = hashlib.sha256(pins + version.encode()).hexdigest()[:12]
    folder = cache_folder() / "environments" / f"{name}-{digest}"

    def find() -> Path | None:
        return folder / BIN if (folder / READY).exists() else None

    def make() -> Path:
        say(f"making an environment for {name} in {folder}: once, some minutes, 1 GB")
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _make(folder, requirements)
        return folder / BIN

    return once(folder, find, make)


def _make(folder: Path, requirements: Path) -> None:
    try:
        venv.create(folder, clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        raise InputError(
            f"{folder}: Python cannot make a virtual environment; install its venv module"
            " (Debian: apt-get install python3-venv)"
        ) from None
    pip = [str(folder / BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    done = subprocess.run(
        [*pip, "--quiet", "--requirement", str(requirements)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
        reason = (errors or ["pip failed"])[-1].removeprefix("ERROR: ")
        raise InputError(
            f"{folder}: pip cannot install {requirements.name} ({reason});"
            " check the network and run again"
        )
    (folder / READY).touch()
