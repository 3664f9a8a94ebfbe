"""Python environments of their own, made on demand: for tools whose pins exclude ours.

Invariant: an environment has exactly the files whose hashes its pins name, transitively, and is
used only after pip has found it complete; one that was interrupted is made again from nothing. Its
folder is named after its pins, so changed pins make another.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.atomic import storage_errors
from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.once import once

READY = ".ready"
BIN = "Scripts" if os.name == "nt" else "bin"


def isolated_environment(
    name: str, pins: Path, say: Callable[[str], None], else_needed: Path | None = None
) -> Path:
    """The folder of the programs (`bin`) of an environment with exactly these pins.

    It lies in the user's cache. Where it has to be made, `say` is told so first; other processes
    that want it wait.

    Args:
        name: what its folder and messages call it.
        pins: requirements with hashes, everything that they need among them.
        say: gets a line for people.
        else_needed: pins that are installed too where some of the others ask for more: which build
            of a package there is differs between indexes.

    Raises:
        InputError: pip or venv failed (no network, no wheel for this Python, a file of another
            hash), the pins are not complete, or the disk is full.
    """
    files = [pins, *([else_needed] if else_needed else [])]
    version = "{}.{}".format(*sys.version_info)
    content = b"".join(path.read_bytes() for path in files) + version.encode()
    key = hashlib.sha256(content).hexdigest()[:12]
    folder = cache_folder() / "environments" / f"{name}-{key}"
    folder = folder if (folder / READY).exists() else usable(folder)

    def find() -> Path | None:
        return folder / BIN if (folder / READY).exists() else None

    def make() -> Path:
        say(f"making an environment for {name} in {folder}: once, some minutes, 1 GB")
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _make(folder, files)
        return folder / BIN

    return once(folder, find, make)


def _make(folder: Path, files: Sequence[Path]) -> None:
    try:
        venv.create(folder, clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        raise InputError(
            f"{folder}: Python cannot make a virtual environment; install its venv module"
            " (Debian: apt-get install python3-venv)"
        ) from None
    incomplete: str | None = None
    for file in files:
        # Without dependencies: what they are is in the pins, and no index can add to them.
        options = ["--quiet", "--no-deps", "--require-hashes", "--requirement", str(file)]
        failed = _pip(folder, "install", *options)
        if failed:
            raise InputError(
                f"{folder}: pip cannot install {file.name} ({failed.removeprefix('ERROR: ')});"
                " check the network and run again"
            )
        incomplete = _pip(folder, "check")
        if incomplete is None:
            (folder / READY).touch()
            return
    raise InputError(f"{folder}: the pins of {files[0].name} are not complete: {incomplete}")


def _pip(folder: Path, *arguments: str) -> str | None:
    """Run an environment's pip: None, or its last error or line where it fails."""
    command = [str(folder / BIN / "python"), "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if not done.returncode:
        return None
    lines = [line for line in done.stdout.splitlines() if line.strip()] or ["pip failed"]
    return ([line for line in lines if line.startswith("ERROR")] or lines)[-1]
