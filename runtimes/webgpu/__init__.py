"""ONNX Runtime's WebGPU provider: what runs an ONNX artifact where a browser's GPU would."""

from runtimes.webgpu.runtime import WebGpuRuntime, open_runtime

__all__ = ["WebGpuRuntime", "open_runtime"]
