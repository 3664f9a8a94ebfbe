"""Which adapter opens which format; a runtime's package is imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from edgeproof.extras import not_installed
from runtimes.protocol import Runtime

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime


@dataclass(frozen=True)
class Adapter:
    """An adapter module, the optional packages it imports, and the extra that installs them.

    `code` is the cache's folder where it keeps what it compiles, if it does. `in_process` tells
    whether it computes in this process, so that its memory can be measured here.
    """

    module: str
    packages: tuple[str, ...]
    extra: str
    code: str | None = None
    in_process: bool = True


ADAPTERS = {
    "onnx": Adapter("runtimes.onnxruntime", ("onnxruntime",), "onnxruntime"),
    "gguf": Adapter("runtimes.llamacpp", ("llama_cpp",), "llamacpp"),
    "mlc": Adapter("runtimes.tvm", ("tvm",), "tvm", code="tvm"),
}
WEBGPU = Adapter("runtimes.webgpu", ("onnxruntime", "onnxruntime_ep_webgpu"), "webgpu")
# transformers.js in a page of Chromium.
BROWSER = Adapter("runtimes.browser.runtime", ("playwright",), "browser", in_process=False)
BROWSER_WEBGPU = Adapter("runtimes.browser.webgpu", ("playwright",), "browser", in_process=False)
# Other runtimes that execute a format, by the name that asks for them.
OTHERS = {
    ("onnx", "webgpu"): WEBGPU,
    ("onnx", "browser"): BROWSER,
    ("onnx", "browser-webgpu"): BROWSER_WEBGPU,
}
SPIN_COUNT = "2000"  # some microseconds, then threads sleep
REFERENCE = Adapter("runtimes.pytorch", ("torch", "transformers", "jinja2"), "parity")


def open_runtime(artifact: Artifact, threads: int, other: str | None = None) -> Runtime:
    """Open an artifact in the runtime that executes its format, or in the `other` one named.

    Raises:
        InputError: no runtime for the format, its package is not installed, or it refuses the file.
    """
    runtime: Runtime = load(adapter_of(artifact, other)).open_runtime(artifact, threads)
    return runtime


def adapter_of(artifact: Artifact, other: str | None = None) -> Adapter:
    """The adapter that executes an artifact's format, or the `other` one named.

    Raises:
        InputError: there is none.
    """
    form = artifact.manifest.variant.format
    if form not in ADAPTERS:
        raise InputError(f"{artifact.path}: no runtime for format {form!r}; known: {[*ADAPTERS]}")
    if other is not None and (form, other) not in OTHERS:
        raise InputError(f"{artifact.path}: {other} does not execute {form}")
    return ADAPTERS[form] if other is None else OTHERS[form, other]


def open_reference(checkpoint: Path, threads: int) -> TorchRuntime:
    """Open a checkpoint folder in PyTorch, float32: what every artifact is compared with.

    Raises:
        InputError: PyTorch or transformers is not installed, or the checkpoint cannot be loaded.
    """
    reference: TorchRuntime = load(REFERENCE).open_reference(checkpoint, threads)
    return reference


def reference_version() -> str:
    """What the reference's arithmetic depends on, without importing it.

    Raises:
        InputError: PyTorch or transformers is not installed.
    """
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in REFERENCE.packages)
    except metadata.PackageNotFoundError as error:
        raise not_installed(str(error.name), REFERENCE.extra) from None


def load(adapter: Adapter) -> ModuleType:
    """Import an adapter.

    Raises:
        InputError: one of its packages is not installed; the message says how to install it.
    """
    # PyTorch and llama.cpp share one OpenMP runtime, which reads this when it is first loaded. Its
    # default, threads that spin at every barrier, is 5 to 20 times slower on a busy machine.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        for package in adapter.packages:
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name not in adapter.packages:
            raise
        raise not_installed(error.name, adapter.extra) from None
    return importlib.import_module(adapter.module)
