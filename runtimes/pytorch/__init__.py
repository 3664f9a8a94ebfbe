"""The reference: a checkpoint in PyTorch."""

from runtimes.pytorch.gpu import gpu_name
from runtimes.pytorch.runtime import TorchRuntime, open_reference

__all__ = ["TorchRuntime", "gpu_name", "open_reference"]
