"""Chromium as a runtime: exports in the libraries that users load them with in a browser."""
