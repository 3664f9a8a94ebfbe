"""A recovered checkpoint: each matrix in blocks of as many bits as its grid in recovery.json needs.

A grid finer than 4 bits lies on the 8-bit one as well, so that all of them are stored exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeproof.families import Parameter
from export.onnx.blocks import BLOCKS, BlockScheme
from export.onnx.decoder import GraphParts, MakeOperators
from export.onnx.embedding import BlockTable, FloatTable, Table
from export.onnx.graph import Graph
from export.onnx.linear import float_linear
from export.onnx.nbits import block_linear
from export.rounding import Rounder
from export.targets import Target

# Grid in recovery.json → storage.
STORAGE = {"q4": "q4", "q5": "q8", "q8": "q8", "iq4_nl": "q8"}


def recovered_parts(
    grids: Mapping[str, str],
    dtype: np.dtype[Any],
    rounder: Rounder,
    make_operators: MakeOperators,
    *,
    native: bool,
) -> GraphParts:
    """What the graph is built of; a matrix that is on no grid is stored in the activations' type.

    Layers that could be one are multiplied apart where their storage differs.
    """

    def scheme(weight: Target) -> BlockScheme | None:
        grid = grids.get(weight.origin)
        return None if grid is None else BLOCKS[STORAGE[grid]]

    def linear(graph: Graph, x: str, weight: Target, path: str) -> str:
        found = scheme(weight)
        emit = block_linear(found, dtype, rounder) if found else float_linear(dtype)
        return emit(graph, x, weight, path)

    def table(weight: Target, shared: bool) -> Table:
        found = scheme(weight)
        if found is None:
            return FloatTable(weight, dtype, dtype)
        return BlockTable(weight, found, dtype, rounder, native, shared)

    def alike(parameters: Sequence[Parameter]) -> bool:
        return len({STORAGE.get(grids.get(item.name, "")) for item in parameters}) == 1

    return GraphParts(dtype, linear, table, make_operators, alike)
