"""ONNX: graphs written directly, in the folder layout of transformers.js and Optimum."""

from export.onnx.variants import FORMAT

__all__ = ["FORMAT"]
