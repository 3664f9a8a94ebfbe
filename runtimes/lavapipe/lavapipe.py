"""A software GPU without root: Mesa's lavapipe, unpacked from Debian packages into the cache.

Dawn, the WebGPU implementation inside ONNX Runtime and Chromium, needs a Vulkan driver with
shaderFloat16; lavapipe has it since Mesa 24, Debian 12's own is 22. Nothing is installed on the
machine: the libraries are loaded into the process that needs them.

Invariant: what is unpacked is exactly what packages.txt names, by version and SHA-256.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import file_sha256
from edgeproof.files.once import once_folder

PACKAGES = files("runtimes.lavapipe").joinpath("packages.txt").read_text("utf-8")
# version of packages.txt's mesa-vulkan-drivers, for people
MESA = next(line for line in PACKAGES.splitlines() if line.startswith("mesa-")).split("=")[1][:6]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
SUITES = ("bookworm", "bookworm-backports")
DRIVER = "libvulkan_lvp.so"
# What the Vulkan loader reads to find a driver; the path is relative to this file.
DESCRIPTION = "lavapipe.json"
DRIVER_JSON = {
    "file_format_version": "1.0.0",
    "ICD": {"api_version": "1.4.305", "library_path": f"./{DRIVER}"},
}
CHOICE = "EDGEPROOF_VULKAN"
LAVAPIPE, SYSTEM = "lavapipe", "system"
FIX = (
    "on Debian 12 (x86-64, glibc) it comes from deb.debian.org; elsewhere install a Vulkan driver"
    " with shaderFloat16 (for example mesa-vulkan-drivers 24 or later) and set"
    " EDGEPROOF_VULKAN=system"
)


def vulkan_choice() -> str:
    """Which Vulkan driver WebGPU is to use: LAVAPIPE, or what `EDGEPROOF_VULKAN=system` finds.

    Raises:
        InputError: the variable says something else.
    """
    default = LAVAPIPE if sys.platform == "linux" else SYSTEM  # elsewhere Dawn uses Metal or D3D12
    choice = os.environ.get(CHOICE) or default
    if choice not in (LAVAPIPE, SYSTEM):
        raise InputError(f"{CHOICE}={choice}: choose {LAVAPIPE} or {SYSTEM}")
    return choice


def shader_cache() -> Path:
    """Where Mesa keeps compiled shaders: compiling a model's takes minutes."""
    return cache_folder() / "shaders"


def load_lavapipe() -> None:
    """Make lavapipe this process's only Vulkan driver; its compiled shaders are kept in the cache.

    Raises:
        InputError: it cannot be had here; the message names the way out.
    """
    folder = driver_folder()
    _load_libraries(folder)
    # The first is the loader's current name of the setting, the second what older ones read.
    os.environ["VK_DRIVER_FILES"] = os.environ["VK_ICD_FILENAMES"] = str(folder / DESCRIPTION)
    os.environ.setdefault("MESA_SHADER_CACHE_DIR", str(shader_cache()))


def driver_folder() -> Path:
    """The folder of the driver and its libraries in the cache; made if it is not there.

    Raises:
        InputError: it cannot be had here; the message names the way out.
    """
    return once_folder(_folder(), _fill)


def driver_here() -> bool:
    """Whether the driver is in the cache already."""
    return _folder().exists()


def _folder() -> Path:
    digest = hashlib.sha256(PACKAGES.encode()).hexdigest()[:16]
    return cache_folder() / "lavapipe" / digest


def _fill(libraries: Path) -> None:
    with tempfile.TemporaryDirectory(dir=libraries) as work:
        _unpack(_download(Path(work)), Path(work), libraries)


def _download(work: Path) -> list[Path]:
    """The packages as files below `work`, by apt with state, lists and cache of its own."""
    if platform.machine() != "x86_64" or not KEYRING.exists() or not shutil.which("apt-get"):
        raise InputError(f"no software GPU for this machine: {FIX}")
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (work / name).mkdir(parents=True)
    sources = work / "sources.list"
    sources.write_text(
        "".join(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n" for suite in SUITES)
    )
    settings = {
        "Dir::State": work,
        "Dir::State::lists": work / "lists",
        "Dir::State::status": os.devnull,
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",  # root would download as _apt, who may not write here
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    pins = dict(line.split() for line in PACKAGES.splitlines() if not line.startswith("#"))
    _run([*apt, "update"], work)
    _run([*apt, "download", *pins], work / "packages")
    packages = sorted((work / "packages").glob("*.deb"))
    found = {file_sha256(path) for path in packages}
    if found != set(pins.values()):
        raise InputError(f"software GPU: downloaded packages are not those of packages.txt; {FIX}")
    return packages


def _unpack(packages: list[Path], work: Path, libraries: Path) -> None:
    """Put the packages' shared libraries into one folder, of the Vulkan drivers only lavapipe."""
    root = work / "root"
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package), str(root)], work)
    for path in root.glob("**/x86_64-linux-gnu/*.so*"):
        if not path.is_symlink() and (path.name == DRIVER or not path.match("libvulkan_*")):
            path.rename(libraries / path.name)
    (libraries / DESCRIPTION).write_text(json.dumps(DRIVER_JSON))


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip() or "no message").splitlines()[-1]
        raise InputError(f"software GPU: {command[0]} failed ({reason}); {FIX}")


def _load_libraries(folder: Path) -> None:
    """Load each library once those that it needs are there: the linker then finds them by name."""
    waiting = sorted(path for path in folder.glob("*.so*") if path.name != DRIVER)
    while waiting:
        failed = {}
        for path in waiting:
            try:
                ctypes.CDLL(str(path))
            except OSError as error:
                failed[path] = error
        if len(failed) == len(waiting):
            raise InputError(f"software GPU: {next(iter(failed.values()))}; {FIX}")
        waiting = list(failed)
