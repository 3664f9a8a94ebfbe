"""Where an ONNX artifact has its graphs, and how nodes are named: no runtime is loaded for that."""

from __future__ import annotations

import re

GRAPH_FOLDER, ROOT = "onnx", "."  # transformers.js's graph; Optimum's and GenAI's
MODULE = re.compile(r"/(model/.+)/\w+")


def module_of(node: str) -> str | None:
    """The module of a node's name, as Hugging Face writes it; None of one that has none."""
    match = MODULE.match(node)
    return match[1].replace("/", ".") if match else None
