"""ONNX artifacts in ONNX Runtime's WebGPU provider.

Invariant: all arithmetic on floating-point values runs on the GPU. ONNX Runtime falls back to the
CPU silently, and there float16 is computed as float32: a graph that overflows on a GPU looks right.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edgeproof.artifact import Artifact
from runtimes.onnx_folder import GRAPH_FOLDER
from runtimes.onnx_placement import RECORDED, require_off_cpu
from runtimes.onnxruntime import OnnxRuntime, create_session, open_graph
from runtimes.webgpu.device import open_device


class WebGpuRuntime(OnnxRuntime):
    """A decoder graph on the GPU; the KV cache travels through main memory. Use `open_runtime`."""

    name = "onnxruntime-webgpu"
    version = f"{ort.__version__}, plugin {version('onnxruntime-ep-webgpu')}"

    @property
    def device(self) -> str:  # type: ignore[override]
        """What executes the shaders."""
        return f"WebGPU, {open_device().description}"


def open_runtime(artifact: Artifact, threads: int, folder: str = GRAPH_FOLDER) -> WebGpuRuntime:
    """Open an ONNX artifact on the GPU; see `runtimes.onnxruntime.open_runtime` for `folder`.

    `threads` has no meaning for a GPU; lavapipe takes all cores.

    Raises:
        InputError: no usable GPU, a graph that is no decoder, or one with nodes that compute on
            the CPU.
    """
    return WebGpuRuntime(*open_graph(artifact, _session, folder))


def _session(path: Path) -> Any:
    options = open_device().options()
    options.add_session_config_entry(*RECORDED)
    session = create_session(path, options)
    require_off_cpu(session, path, "WebGPU")
    return session
