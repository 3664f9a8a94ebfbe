"""How a model is compiled for OpenVINO's CPU plugin: exactly, whatever the processor offers.

Invariant: all arithmetic is float32, the KV cache too. By default the plugin computes in bfloat16
or float16 where the processor has instructions for it, rounds the activations beside compressed
weights to 8 bits, and keeps a stateful KV cache in 8 bits.
Source: https://docs.openvino.ai, "Supported properties" of the CPU device.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from edgeproof.errors import InputError
from runtimes.openvino.signal_stack import kept_signal_stack

DEVICE = "CPU"
# What its bindings raise for a model that it cannot read, compile or run.
ERRORS = (RuntimeError, LookupError, TypeError, ValueError)
# What users get is measured without these: benchmarks/openvino.py.
EXACT: dict[str, Any] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "KV_CACHE_PRECISION": "f32",
}
VERSION = importlib.metadata.version("openvino")


def settings(threads: int, properties: Mapping[str, Any] = EXACT) -> dict[str, Any]:
    """These properties, and those of a model that answers one caller on so many threads."""
    return {
        **properties,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


@kept_signal_stack()
def compiled(path: Path, properties: Mapping[str, Any], shown: Path | None = None) -> Any:
    """A model from a file, an `ov.CompiledModel`; errors name `shown`, or the file.

    Raises:
        InputError: OpenVINO cannot read or compile it.
    """
    core = ov.Core()
    try:
        return core.compile_model(core.read_model(path), DEVICE, dict(properties))
    except ERRORS as error:
        raise refused(shown or path, error) from None


def refused(path: Path, error: Exception) -> InputError:
    """What OpenVINO said, in a line.

    Its messages begin with where in its source they arose; operators that it lacks are named last.
    """
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    lacking = [line for line in said if line.startswith("No conversion rule")]
    reason = (lacking or said or lines or ["no reason given"])[0]
    return InputError(f"{path}: OpenVINO cannot run it: {reason}")
