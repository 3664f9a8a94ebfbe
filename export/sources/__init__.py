"""Turn what a user calls a model into a checkpoint folder in Hugging Face layout."""

from export.sources.resolver import resolve
from export.sources.source import Source

__all__ = ["Source", "resolve"]
