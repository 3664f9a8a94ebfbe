"""The adapter module of `--runtime browser-webgpu`."""

from runtimes.browser.runtime import open_gpu_runtime as open_runtime

__all__ = ["open_runtime"]
