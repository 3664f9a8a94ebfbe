"""Weights in blocks of 4 or 8 bits, in the layout of ONNX Runtime's MatMulNBits.

Layout (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, MatMulNBits):
codes uint8 [out, blocks, block × bits ÷ 8], the first of two 4-bit codes in the low half; scales
[out, blocks] in the type of the activations; zero points uint8 [out, blocks × bits ÷ 8], packed
alike. A last block that is not full is padded with code 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.onnx.blocks import BlockScheme
from export.onnx.graph import CONTRIB, Count, Graph, StoredTensor
from export.onnx.linear import EmitLinear
from export.onnx.rounded import Packed, rounded_parts
from export.rounding import Rounded, Rounder
from export.targets import Target

UINT8 = np.dtype(np.uint8)


def packed(rounded: Rounded, scheme: BlockScheme, rows: int, columns: int) -> Packed:
    """What MatMulNBits reads of rounded rows: codes, scales, zero points (none if symmetric)."""
    blocks = scheme.blocks(columns)
    packed_codes = np.ascontiguousarray(_pack(rounded.zero_padded(columns), scheme.bits).T)
    arrays = [packed_codes.reshape(rows, blocks, -1), rounded.scales.reshape(rows, blocks)]
    if not scheme.symmetric:
        arrays.append(_pack_zeros(rounded.offsets.reshape(rows, blocks), scheme))
    return tuple(arrays)


@dataclass(frozen=True)
class BlockTensors:
    """The stored tensors of one weight: codes, scales, zero points unless symmetric."""

    scheme: BlockScheme
    codes: StoredTensor
    scales: StoredTensor
    zeros: StoredTensor | None

    def store(self, graph: Graph) -> list[str]:
        """Put them into the graph: the inputs of MatMulNBits after the first."""
        tensors = [self.codes, self.scales, *([self.zeros] if self.zeros else [])]
        return [graph.store(tensor) for tensor in tensors]


def block_tensors(
    target: Target, scheme: BlockScheme, dtype: np.dtype[Any], rounder: Rounder
) -> BlockTensors:
    """Describe a weight [out, in] in blocks."""
    rows, columns = target.shape
    blocks = scheme.blocks(columns)
    parts = rounded_parts(
        target,
        scheme.grid(dtype),
        rounder,
        lambda rounded, rows: packed(rounded, scheme, rows, columns),
    )
    codes_shape = (rows, blocks, scheme.block // scheme.per_byte)
    zeros_shape = (rows, -(-blocks // scheme.per_byte))
    scales = StoredTensor(f"{target.name}.scales", (rows, blocks), dtype, parts.other(1))
    zeros = (
        None
        if scheme.symmetric
        else StoredTensor(f"{target.name}.zero_points", zeros_shape, UINT8, parts.other(2))
    )
    extra = scales.nbytes + (zeros.nbytes if zeros else 0)
    count = Count(target, scheme.name, int(np.prod(codes_shape)) + extra)
    codes = StoredTensor(f"{target.name}.codes", codes_shape, UINT8, parts.first, count)
    return BlockTensors(scheme, codes, scales, zeros)


def block_linear(scheme: BlockScheme, dtype: np.dtype[Any], rounder: Rounder) -> EmitLinear:
    """Multiply with MatMulNBits, which unpacks the blocks while it multiplies."""
    return lambda graph, x, weight, path: matmul_nbits(
        graph, x, weight, block_tensors(weight, scheme, dtype, rounder), path
    )


def matmul_nbits(
    graph: Graph, x: str, weight: Target, tensors: BlockTensors, path: str, output: str = ""
) -> str:
    """Multiply: x · Wᵀ, named `output` (or after its path) and in the type of the scales."""
    rows, columns = weight.shape
    scheme, name = tensors.scheme, output or f"{path}/MatMulNBits/output_0"
    graph.emit(
        "MatMulNBits",
        [x, *tensors.store(graph)],
        path,
        [name],
        domain=CONTRIB,
        K=columns,
        N=rows,
        bits=scheme.bits,
        block_size=scheme.block,
        # Level 0 is the default, and not every execution provider knows the attribute.
        **({"accuracy_level": scheme.accuracy_level} if scheme.accuracy_level else {}),
    )
    return name if output else graph.typed(name, tensors.scales.dtype, [None, None, rows])


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes uint8 [n, …] → bytes: with 4 bits, neighbours share one, the first in the low half."""
    return codes if bits == 8 else codes[0::2] | (codes[1::2] << np.uint8(4))


def _pack_zeros(points: np.ndarray, scheme: BlockScheme) -> np.ndarray:
    """Zero points uint8 [rows, blocks] → bytes [rows, …]; the odd one's partner is the middle."""
    missing = -points.shape[1] % scheme.per_byte
    middle = 1 << (scheme.bits - 1)
    padded = np.pad(points, ((0, 0), (0, missing)), constant_values=middle)
    return np.ascontiguousarray(_pack(padded.T, scheme.bits).T)
