"""GGUF: single-file models for llama.cpp, tensor for tensor what its own converter writes."""

from export.gguf.variants import FORMAT

__all__ = ["FORMAT"]
