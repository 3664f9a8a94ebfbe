"""Where a parity run took place: machine and library versions, for its report."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from edgeproof import __version__
from edgeproof.steps.machine import processor

# What logits, rounding, tokens, the values in files or intervals can depend on.
LIBRARIES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "ml-dtypes", "jinja2",
    "protobuf", "onnx", "onnxruntime", "onnxruntime-ep-webgpu", "gguf", "llama-cpp-python",
    "apache-tvm", "mlx", "mlx-cpu", "mlx-metal", "mlx-lm", "openvino", "openvino-genai",
)  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """The machine that the comparison ran on."""

    system: str
    cpu: str
    """The processor's name."""
    cpu_count: int | None
    threads: int
    """What the runtimes were given."""
    versions: dict[str, str]
    """Of edgeproof, Python, and the installed libraries that results can depend on."""


def environment(threads: int) -> Environment:
    """This machine's description."""
    libraries = {name: found for name in LIBRARIES if (found := _installed(name))}
    return Environment(
        system=platform.platform(),
        cpu=processor(),
        cpu_count=os.cpu_count(),
        threads=threads,
        versions={"edgeproof": __version__, "python": platform.python_version(), **libraries},
    )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
