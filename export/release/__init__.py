"""Releases: the exports that passed, as folders to publish that prove what they are.

Reads artifacts' manifests and `parity.json`; imports no runtime.
"""
