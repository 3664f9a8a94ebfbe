"""What is looked for, each by a function that says what it found or raises what to do.

Runtimes are loaded for real, so that a library that is there and broken shows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec

from edgeproof.errors import InputError
from edgeproof.extras import EXTRAS
from edgeproof.files.cache import cache_folder, usable
from runtimes.adapter import Adapter, OptionalModule
from runtimes.formats import known_formats, reader
from runtimes.formats.gguf import GPU
from runtimes.formats.onnx import CUDA
from runtimes.registry import REFERENCE
from runtimes.threads import processors


@dataclass(frozen=True)
class Check:
    """One line of the report: its name, what needs it, and how it is looked for."""

    name: str
    use: str
    look: Callable[[], str]
    """What is there, in a few words.

    Raises:
        InputError: it is not; the message says what brings it.
    """


def checks() -> dict[str, Check]:
    """All of them by name, in the order of the report."""
    found = [
        Check("processors", "speed", _processors),
        Check("cache", "what is fetched or measured once", _cache),
        Check("PyTorch", "the reference, recovery", partial(_loaded, REFERENCE)),
        *_runtimes(),
        Check("GPU", "PyTorch", _gpu),
        Check("ONNX Runtime on CUDA", "onnx files, --runtime onnxruntime-cuda", _on(CUDA)),
        Check("llama.cpp on a GPU", "gguf files, --runtime llamacpp-gpu", _on(GPU)),
        Check("WebGPU device", "fp16 as browsers run it", _webgpu),
        Check("Chromium", "checks in a browser", _chromium),
        Check("npm packages", "the demo and checks in a browser", _web_packages),
        Check("releasing", "release build and verify", _releasing),
    ]
    return {check.name: check for check in found}


def _runtimes() -> Iterable[Check]:
    """One for each adapter's packages; several adapters may be of one."""
    seen = set()
    for form in known_formats():
        read = reader(form)
        for name, adapter in [("", read.adapter), *read.others.items()]:
            if adapter.packages not in seen:
                seen.add(adapter.packages)
                use = f"{form} files" if not name else f"{form} files, --runtime {name}"
                yield Check(" + ".join(adapter.packages), use, partial(_loaded, adapter))


def _loaded(module: OptionalModule) -> str:
    module.load()
    known = metadata.packages_distributions()
    names = {name: known.get(name, [name])[0] for name in module.packages}
    return ", ".join(f"{name} {metadata.version(of)}" for name, of in names.items())


def _processors() -> str:
    own, all_of_them = len(processors()), os.cpu_count() or 1
    return f"{own}" if own == all_of_them else f"{own} of {all_of_them}"


def _cache() -> str:
    folder = cache_folder()
    if usable(folder) != folder:
        raise InputError(f"{folder} cannot be written; set EDGEPROOF_CACHE to a folder that can be")
    above = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{folder}, {shutil.disk_usage(above).free / 1e9:.0f} GB free"


def _gpu() -> str:
    name = REFERENCE.load().gpu_name()
    if name is None:
        raise InputError("none that PyTorch can use; everything runs without")
    return str(name)


def _on(adapter: Adapter) -> Callable[[], str]:
    return lambda: str(adapter.load().found_device())


def _webgpu() -> str:
    from runtimes.formats.onnx import WEBGPU
    from runtimes.lavapipe import LAVAPIPE, driver_here, vulkan_choice

    WEBGPU.load()
    if vulkan_choice() == LAVAPIPE and not driver_here():
        raise InputError("its driver is not in the cache; run: python -m runtimes.webgpu")
    from runtimes.webgpu.device import open_device

    return open_device().description


def _chromium() -> str:
    from runtimes.browser.chromium import find_chromium

    return str(find_chromium())


def _web_packages() -> str:
    from runtimes.browser.packages import packages_folder

    folder = packages_folder()
    if not folder.exists():
        raise InputError("not in the cache; run: python -m runtimes.browser")
    return str(folder)


def _releasing() -> str:
    missing = [package for package in EXTRAS["release"] if find_spec(package) is None]
    if missing:
        raise InputError(f'{", ".join(missing)}; run: pip install "edgeproof[release]"')
    return f"model-signing {metadata.version('model-signing')}"
