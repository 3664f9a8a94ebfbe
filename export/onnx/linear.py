"""How linear layers and the head are stored and computed: the seam for every quantised storage.

An `EmitLinear` adds the nodes and the initializers of y = x · Wᵀ to a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from export.onnx.graph import Graph
from export.onnx.weights import transposed
from export.targets import Target

# (graph, name of x [.., in], weight [out, in], module path) → name of y [.., out]
EmitLinear = Callable[[Graph, str, Target, str], str]


def float_linear(dtype: np.dtype[Any]) -> EmitLinear:
    """Store the weight as [in, out] floats and multiply with MatMul."""

    def emit(graph: Graph, x: str, weight: Target, path: str) -> str:
        return graph.node("MatMul", [x, graph.store(transposed(weight, dtype))], path)

    return emit
