"""Streaming exporters from Hugging Face checkpoints to ONNX, GGUF and MLC."""
