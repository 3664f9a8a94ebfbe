"""Streaming exporters from Hugging Face checkpoints to ONNX, GGUF and MLC."""

__version__ = "0.2.0"
