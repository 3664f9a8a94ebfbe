"""The WebGPU device of this process, from ONNX Runtime's plugin (PyPI: onnxruntime-ep-webgpu).

A plugin is registered for a whole process, and Dawn keeps one device for it: the device is opened
once. https://onnxruntime.ai/docs/execution-providers/WebGPU-ExecutionProvider.html
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import onnxruntime_ep_webgpu as plugin
from onnx import TensorProto, helper

from edgeproof.errors import InputError
from runtimes.lavapipe import CHOICE, LAVAPIPE, MESA, load_lavapipe, vulkan_choice
from runtimes.onnxruntime import ORT_ERRORS

ERRORS_ONLY = 3


@dataclass(frozen=True)
class Device:
    """What sessions are opened on: ONNX Runtime's own object, and a name for people."""

    handle: Any
    description: str

    def options(self) -> ort.SessionOptions:
        """Options of a session on this device that logs errors only."""
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.add_provider_for_devices([self.handle], {})
        return options


@functools.cache
def open_device() -> Device:
    """The process's device: lavapipe, or what `EDGEPROOF_VULKAN=system` finds on this machine.

    Raises:
        InputError: there is none, or it has no shader-f16; the message names the way out.
    """
    choice = vulkan_choice()
    if choice == LAVAPIPE:
        load_lavapipe()
        # Without it, the plugin offers no device where ONNX Runtime finds no GPU.
        os.environ["ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"] = "1"
    ort.set_default_logger_severity(ERRORS_ONLY)
    try:
        ort.register_execution_provider_library("edgeproof.webgpu", plugin.get_library_path())
    except ORT_ERRORS as error:
        raise InputError(f"WebGPU cannot be started: {str(error).splitlines()[0]}") from None
    names = plugin.get_ep_names()
    handle = next((item for item in ort.get_ep_devices() if item.ep_name in names), None)
    if handle is None:
        raise InputError(f"no GPU is found here; set {CHOICE}={LAVAPIPE} for a software GPU")
    where = f"Mesa {MESA} lavapipe" if choice == LAVAPIPE else "this machine's driver"
    device = Device(handle, where)
    _demand_float16(device)
    return device


def _demand_float16(device: Device) -> None:
    """Multiply float16 numbers, with the CPU forbidden: only a device with shader-f16 can.

    Raises:
        InputError: it cannot.
    """
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n"]) for name in ("x", "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"])], "probe", values[:1], values[1:]
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = device.options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    x = np.array([1.5, -3.0], np.float16)
    try:
        (y,) = ort.InferenceSession(model.SerializeToString(), options).run(["y"], {"x": x})
    except ORT_ERRORS as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{device.description} has no usable shader-f16 ({reason}); set"
            f" {CHOICE}={LAVAPIPE} for a software GPU that has it"
        ) from None
    if not np.array_equal(y, x * x):
        raise InputError(f"{device.description} multiplies float16 wrongly: {x} squared gave {y}")
