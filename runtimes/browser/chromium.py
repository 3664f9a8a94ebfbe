"""Which Chromium pages are opened in, and the GPU that it gets.

Without a GPU, WebGPU runs on Mesa's lavapipe through a shim that stands in for Chromium's own
software driver, which lacks float16. Invariant: the installed Chromium is never changed; the shim
lies in a copy (of hard links, where possible) in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.once import once_folder
from runtimes.lavapipe import MESA, SYSTEM, driver_folder, shader_cache, vulkan_choice

log = logging.getLogger(__name__)

EXECUTABLE = "EDGEPROOF_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Debian's command is a script that starts this program.
DEBIAN_SCRIPT, DEBIAN = Path("/usr/bin/chromium"), Path("/usr/lib/chromium/chromium")
DRIVER = "libvk_swiftshader.so"
SHIM = "vulkan_shim.c"
# What Chromium's Vulkan loader reads of a driver. With SwiftShader's own api_version, 1.0.5, the
# loader calls lavapipe as a Vulkan 1.0 driver, and Chromium finds no memory that it can use.
DRIVER_FILE = "vk_swiftshader_icd.json"
DRIVER_JSON = {
    "file_format_version": "1.0.0",
    "ICD": {"library_path": f"./{DRIVER}", "api_version": "1.3.0"},
}
FIX = f"install it (Debian: apt-get install chromium) or set {EXECUTABLE} to its path"

# Chromium answers no page from outside, and asks nobody.
ARGUMENTS = (
    "--headless=new",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WEBGPU = ("--enable-unsafe-webgpu",)
SOFTWARE = (*WEBGPU, "--use-webgpu-adapter=swiftshader")


@dataclass(frozen=True)
class Browser:
    """A Chromium to start: arguments and environment come on top of the usual ones.

    `gpu` says what executes shaders, None where there is no WebGPU.
    """

    executable: Path
    arguments: tuple[str, ...] = ARGUMENTS
    environment: dict[str, str] = field(default_factory=dict)
    gpu: str | None = None


def find_chromium() -> Path:
    """Chromium's executable: `EDGEPROOF_CHROMIUM`, one on the path, or Playwright's own.

    Raises:
        InputError: there is none; the message says what to do.
    """
    chosen = os.environ.get(EXECUTABLE)
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise InputError(f"{EXECUTABLE}={chosen}: no program; {FIX}")
        return _program(Path(chosen))
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return _program(Path(found))
    downloaded = _downloaded_by_playwright()
    if downloaded is None:
        raise InputError(f"Chromium is not installed; {FIX}")
    return downloaded


def sandboxed() -> bool:
    """Whether Chromium keeps pages in its sandbox: from root it takes none."""
    return not _is_root()


def _program(path: Path) -> Path:
    return DEBIAN if path == DEBIAN_SCRIPT and DEBIAN.exists() else path


def install_chromium(say: Callable[[str], None]) -> Path:
    """`find_chromium`; where there is none and this is root on Debian, after installing it.

    Raises:
        InputError: there is none, and it cannot be installed here.
    """
    try:
        return find_chromium()
    except InputError:
        apt = shutil.which("apt-get")
        if os.environ.get(EXECUTABLE) or apt is None or not _is_root():
            raise
    say("installing Chromium with apt-get: once, some 120 MB")
    for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            [apt, "-qq", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise InputError(f"apt-get {command[0]} failed ({reason}); {FIX}")
    return find_chromium()


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def without_gpu() -> Browser:
    """Chromium without WebGPU, as on many phones.

    Raises:
        InputError: there is no Chromium.
    """
    return Browser(find_chromium())


def with_gpu() -> Browser:
    """Chromium with WebGPU and shader-f16: on lavapipe, or with `EDGEPROOF_VULKAN=system` on a GPU.

    Without a compiler for the shim, or without lavapipe, it is Chromium's own software driver,
    which has no float16; that is said.

    Raises:
        InputError: no Chromium; says the way out.
    """
    executable = find_chromium()
    if vulkan_choice() == SYSTEM:
        return Browser(executable, ARGUMENTS + WEBGPU, gpu="this machine's driver")
    try:
        environment = {
            "EDGEPROOF_LAVAPIPE": str(driver_folder()),
            "MESA_SHADER_CACHE_DIR": os.environ.get("MESA_SHADER_CACHE_DIR") or str(shader_cache()),
        }
        copy = _copy_with_shim(executable)
    except InputError as error:
        log.warning("%s; until then SwiftShader runs WebGPU, without float16", error)
        return Browser(executable, ARGUMENTS + SOFTWARE, gpu="SwiftShader without shader-f16")
    return Browser(copy, ARGUMENTS + SOFTWARE, environment, f"Mesa {MESA} lavapipe")


def _copy_with_shim(executable: Path) -> Path:
    """The executable in a copy of Chromium's folder whose software driver is the shim."""
    program = executable.resolve()
    if not (program.parent / DRIVER).exists():
        raise InputError(
            f"{program.parent}: no {DRIVER} beside Chromium, so no software GPU for it; set"
            " EDGEPROOF_VULKAN=system where there is a GPU"
        )
    source = files("runtimes.browser").joinpath(SHIM).read_bytes()
    state = program.stat()
    key = f"{program} {state.st_size} {state.st_mtime_ns} {DRIVER_JSON}".encode() + source
    folder = cache_folder() / "chromium" / hashlib.sha256(key).hexdigest()[:16]

    def fill(copy: Path) -> None:
        shutil.copytree(program.parent, copy, copy_function=_link, dirs_exist_ok=True)
        for name in (DRIVER, DRIVER_FILE):  # links to what is installed
            (copy / name).unlink(missing_ok=True)
        _compile(source, copy / DRIVER)
        (copy / DRIVER_FILE).write_text(json.dumps(DRIVER_JSON))

    return once_folder(folder, fill) / program.name


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def _compile(source: bytes, target: Path) -> None:
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise InputError(
            "no C compiler (cc) for the software GPU's shim, so no float16 in WebGPU; install one"
            " (Debian: apt-get install gcc), or set EDGEPROOF_VULKAN=system where there is a GPU"
        )
    command = [compiler, "-shared", "-fPIC", "-O1", "-xc", "-", "-o", str(target), "-ldl"]
    done = subprocess.run(command, input=source, capture_output=True, check=False)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1]
        raise InputError(f"{SHIM}: {compiler} failed: {reason}")


def _downloaded_by_playwright() -> Path | None:
    """Where `playwright install chromium` has put one."""
    root = Path(
        os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
        or {
            "darwin": "~/Library/Caches/ms-playwright",
            "win32": "~/AppData/Local/ms-playwright",
        }.get(sys.platform, "~/.cache/ms-playwright")
    ).expanduser()
    found = sorted(root.glob("chromium-*/chrome-*/chrome"))
    return found[-1] if found else None
