"""Streaming exporters from Hugging Face checkpoints to ONNX, GGUF and MLC."""

from edgeproof.interrupted import quietly

quietly()
