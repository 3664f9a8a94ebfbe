"""GGUF artifacts in llama.cpp with all layers, the KV cache and the head on a GPU.

Which GPU, and by CUDA, Metal or Vulkan, is what llama-cpp-python was built with.
"""

from __future__ import annotations

import llama_cpp

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.llamacpp import LlamaCpp

# More than any model has.
ALL_LAYERS = 1_000_000
CPU = "CPU"


class LlamaCppGpu(LlamaCpp):
    """See `LlamaCpp`. Use `open_runtime`."""

    name = "llama.cpp-gpu"
    gpu_layers = ALL_LAYERS

    @property
    def device(self) -> str:  # type: ignore[override]
        """By which of its backends it computes."""
        return found_device()


def open_runtime(artifact: Artifact, threads: int) -> LlamaCppGpu:
    """Open a GGUF artifact on the GPU.

    Raises:
        InputError: llama.cpp has no GPU here, or refuses the file.
    """
    found_device()
    return LlamaCppGpu(artifact.files(".gguf")[0], threads)


def found_device() -> str:
    """The backends beside the CPU's, as llama.cpp names them in its own description.

    Raises:
        InputError: it was built for none, or finds no device; the message says what brings one.
    """
    llama_cpp.llama_backend_init()
    if not llama_cpp.llama_supports_gpu_offload():
        raise InputError(
            f"llama.cpp of llama-cpp-python {llama_cpp.__version__} here finds no GPU; build it for"
            " one: CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-binary"
            " llama-cpp-python llama-cpp-python (or -DGGML_METAL=on, -DGGML_VULKAN=on)"
        )
    return ", ".join(backends(llama_cpp.llama_print_system_info().decode())) or "GPU"


def backends(system: str) -> list[str]:
    """The backends of `llama_print_system_info`, "NAME : feature = 1 | …", but the CPU's."""
    names = [part.partition(":")[0].strip() for part in system.split("|") if ":" in part]
    return [name for name in dict.fromkeys(names) if name != CPU]
