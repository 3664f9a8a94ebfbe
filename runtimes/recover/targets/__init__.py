"""The formats that a model can be recovered for, and what all of them store."""

from runtimes.recover.targets import gguf, mlc, mlx, onnx, shared
from runtimes.recover.targets.target import Target

TARGETS = {
    target.name: target
    for target in (gguf.TARGET, onnx.TARGET, mlc.TARGET, mlx.TARGET, shared.TARGET)
}

__all__ = ["TARGETS", "Target"]
