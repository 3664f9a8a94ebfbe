"""The reference: a checkpoint in PyTorch."""

from runtimes.pytorch.runtime import TorchRuntime, open_reference

__all__ = ["TorchRuntime", "open_reference"]
