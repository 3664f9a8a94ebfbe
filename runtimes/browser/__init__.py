"""Chromium as a runtime: exports in the libraries that users load them with in a browser."""

from runtimes.browser.runtime import TransformersJs, open_runtime

__all__ = ["TransformersJs", "open_runtime"]
