"""Weights as bitsandbytes's NF4, in the layout of ONNX Runtime's MatMulBnb4.

Layout (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, MatMulBnb4):
the rows of [out, in], one after the other, are divided into blocks of 64, which may begin in one
row and end in the next; codes uint8 [out × in ÷ 2], the first of two in the high half; one float32
scale per block.
"""

from __future__ import annotations

import numpy as np

from export.onnx.graph import CONTRIB, Count, Graph, StoredTensor
from export.onnx.linear import EmitLinear
from export.onnx.rounded import Packed, rounded_parts
from export.rounding import BlockAxis, Grid, Kind, Rounded, Rounder, Rules
from export.rounding.cast import FLOAT32
from export.targets import Target

NAME = "bnb4"
BLOCK = 64
NF4 = 1  # MatMulBnb4's quant_type
UINT8 = np.dtype(np.uint8)
GROUP_VALUES = 2000 * BLOCK  # per step: its temporaries stay in the L2 cache
# NormalFloat4 (QLoRA, https://arxiv.org/abs/2305.14314, appendix E).
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
GRID = Grid(
    Kind.CODEBOOK, 4, BLOCK, FLOAT32, Rules.BITSANDBYTES, axis=BlockAxis.FLAT, levels=LEVELS
)


def bnb4_linear(rounder: Rounder) -> EmitLinear:
    """Multiply with MatMulBnb4; float32 activations."""
    return lambda graph, x, weight, path: _matmul(graph, x, weight, path, rounder)


def packed(rounded: Rounded, values: int) -> Packed:
    """What MatMulBnb4 reads of so many rounded values: codes in pairs, largest magnitudes."""
    pairs = (rounded.codes[0::2] << np.uint8(4)) | rounded.codes[1::2]
    return np.ascontiguousarray(pairs.T).reshape(-1)[: -(-values // 2)], rounded.scales


def _matmul(graph: Graph, x: str, weight: Target, path: str, rounder: Rounder) -> str:
    rows, columns = weight.shape
    values = rows * columns
    parts = rounded_parts(
        weight, GRID, rounder, lambda rounded, rows: packed(rounded, rows * columns), GROUP_VALUES
    )
    blocks = -(-values // BLOCK)
    scales = StoredTensor(f"{weight.name}.scales", (blocks,), FLOAT32, parts.other(1))
    pairs = -(-values // 2)
    count = Count(weight, NAME, pairs + scales.nbytes)
    codes = StoredTensor(f"{weight.name}.codes", (pairs,), UINT8, parts.first, count)
    output = f"{path}/MatMulBnb4/output_0"
    graph.typed(output, FLOAT32, [None, None, rows])
    return graph.emit(
        "MatMulBnb4",
        [x, graph.store(codes), graph.store(scales)],
        path,
        [output],
        domain=CONTRIB,
        K=columns,
        N=rows,
        block_size=BLOCK,
        quant_type=NF4,
    )
