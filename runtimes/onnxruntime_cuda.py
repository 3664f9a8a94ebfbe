"""ONNX artifacts in ONNX Runtime's CUDA provider, which the package onnxruntime-gpu has.

Invariant: all arithmetic on floating-point values runs on the GPU, float32 without TF32; where
ONNX Runtime would fall back to the CPU, it is refused. Options:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.onnx_folder import GRAPH_FOLDER
from runtimes.onnx_placement import RECORDED, require_off_cpu
from runtimes.onnxruntime import OnnxRuntime, create_session, open_graph

PROVIDER = "CUDAExecutionProvider"
OPTIONS = {"use_tf32": "0"}


class OnnxRuntimeCuda(OnnxRuntime):
    """A decoder graph on an NVIDIA GPU; the KV cache travels through main memory."""

    name = "onnxruntime-cuda"
    device = "CUDA"


def open_runtime(artifact: Artifact, threads: int, folder: str = GRAPH_FOLDER) -> OnnxRuntimeCuda:
    """Open an ONNX artifact on the GPU; see `runtimes.onnxruntime.open_runtime` for `folder`.

    Raises:
        InputError: no CUDA provider or no GPU, a graph that is no decoder, or one with nodes that
            compute on the CPU.
    """
    found_device()
    return OnnxRuntimeCuda(*open_graph(artifact, lambda path: _session(path, threads), folder))


def found_device() -> str:
    """What this ONNX Runtime would compute on; no session is opened, so that a driver may lack.

    Raises:
        InputError: it was built without the provider; the message says what brings it.
    """
    if PROVIDER not in ort.get_available_providers():
        raise InputError(
            f"ONNX Runtime {ort.__version__} here has no CUDA provider; with an NVIDIA GPU:"
            " pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    return f"{PROVIDER} of ONNX Runtime {ort.__version__}"


def _session(path: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry(*RECORDED)
    session = create_session(path, options, providers=[(PROVIDER, OPTIONS)])
    require_off_cpu(session, path, "CUDA")
    return session
