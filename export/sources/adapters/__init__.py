"""PEFT's LoRA adapters as part of a source: merged into their base, once, as a checkpoint."""

from export.sources.adapters.request import AdapterRequest, requests

__all__ = ["AdapterRequest", "requests"]
