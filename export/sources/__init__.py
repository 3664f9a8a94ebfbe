"""Turn what a user calls a model into a checkpoint folder in Hugging Face layout."""

from export.sources.source import Source, cache_folder, resolve

__all__ = ["Source", "cache_folder", "resolve"]
