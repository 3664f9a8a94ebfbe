"""Graphs traced by Optimum in an environment of its own: for architectures not written directly."""

from export.onnx.traced.variants import TRACED

__all__ = ["TRACED"]
