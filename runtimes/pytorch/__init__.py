"""The reference: a checkpoint in PyTorch."""

from runtimes.pytorch.gpu import gpu_name
from runtimes.pytorch.opening import open_reference
from runtimes.pytorch.runtime import TorchRuntime

__all__ = ["TorchRuntime", "gpu_name", "open_reference"]
