"""Weights as bitsandbytes's NF4, in the layout of ONNX Runtime's MatMulBnb4.

Layout (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, MatMulBnb4):
the rows of [out, in], one after the other, are divided into blocks of 64, which may begin in one
row and end in the next; codes uint8 [out × in ÷ 2], the first of two in the high half; one float32
scale per block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from export.architecture import Target
from export.checkpoint import Checkpoint
from export.onnx.graph import CONTRIB, Count, Graph, StoredTensor
from export.onnx.weights import Parts
from export.quantization.cast import FLOAT32
from export.quantization.nf4 import round_nf4

NAME = "bnb4"
BLOCK = 64
NF4 = 1  # MatMulBnb4's quant_type
UINT8 = np.dtype(np.uint8)
GROUP_BLOCKS = 2000  # per step: its temporaries stay in the L2 cache


def bnb4_linear(graph: Graph, x: str, weight: Target, path: str) -> str:
    """Multiply with MatMulBnb4; float32 activations. See `EmitLinear`."""
    rows, columns = weight.shape
    values = rows * columns
    parts = _parts(weight)
    blocks = -(-values // BLOCK)
    scales = StoredTensor(f"{weight.name}.scales", (blocks,), FLOAT32, parts.other(1))
    packed = -(-values // 2)
    count = Count(weight, NAME, packed + scales.nbytes)
    codes = StoredTensor(f"{weight.name}.codes", (packed,), UINT8, parts.first, count)
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


def pack_nf4(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest magnitudes [blocks] and packed codes of finite float32 values [n]."""
    padded = np.pad(values, (0, -values.size % BLOCK))
    peaks, codes = round_nf4(padded.reshape(-1, BLOCK))
    pairs = codes.reshape(-1, 2)
    packed = (pairs[:, 0] << np.uint8(4)) | pairs[:, 1]
    return peaks, packed[: -(-values.size // 2)]


def _parts(target: Target) -> Parts:
    """Codes and scales; values that do not fill a block wait for the next rows."""
    group = GROUP_BLOCKS * BLOCK

    def produce(checkpoint: Checkpoint) -> Iterator[tuple[np.ndarray, ...]]:
        rest = np.empty(0, np.float32)
        for rows in checkpoint.blocks(target):
            values = np.concatenate([rest, rows.reshape(-1).astype(np.float32)])
            whole = values.size // BLOCK * BLOCK
            for start in range(0, whole, group):
                peaks, packed = pack_nf4(values[start : min(start + group, whole)])
                yield packed, peaks
            rest = values[whole:]
        if rest.size:
            peaks, packed = pack_nf4(rest)
            yield packed, peaks

    return Parts(produce)
