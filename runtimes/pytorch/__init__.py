"""The reference: a checkpoint in PyTorch."""

from runtimes.pytorch.devices import chosen_device, gpu_name
from runtimes.pytorch.opening import open_reference
from runtimes.pytorch.runtime import TorchRuntime

__all__ = ["TorchRuntime", "chosen_device", "gpu_name", "open_reference"]
