"""Weights in blocks, in the layout of ONNX's own DequantizeLinear: a standard operator.

Layout (https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html, `block_size`): codes [in, out],
scales and zero points [blocks, out]; of two 4-bit codes that share a byte, the first is in the low
half. Codes are signed where zero points can be left out, since 0 is then the middle. ONNX Runtime
replaces this and the MatMul that follows with its own MatMulNBits, which needs this orientation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from export.checkpoint import Checkpoint
from export.onnx.blocks import BlockScheme
from export.onnx.graph import INT4, UINT4, Content, Count, Graph, StoredTensor
from export.onnx.linear import EmitLinear
from export.onnx.rounded import Packed, rounded_parts
from export.rounding import Rounded, Rounder
from export.targets import Target

# (bits, symmetric) → type of codes and zero points.
CODES: dict[tuple[int, bool], np.dtype[Any]] = {
    (4, True): INT4,
    (4, False): UINT4,
    (8, True): np.dtype(np.int8),
    (8, False): np.dtype(np.uint8),
}


def dequantised_linear(scheme: BlockScheme, dtype: np.dtype[Any], rounder: Rounder) -> EmitLinear:
    """DequantizeLinear and MatMul, for activations of `dtype`."""

    def emit(graph: Graph, x: str, weight: Target, path: str) -> str:
        tensors = [graph.store(tensor) for tensor in _tensors(weight, scheme, dtype, rounder)]
        matrix = graph.node(
            "DequantizeLinear", tensors, f"{path}/weight", axis=0, block_size=scheme.block
        )
        return graph.node("MatMul", [x, matrix], path)

    return emit


def _tensors(
    target: Target, scheme: BlockScheme, dtype: np.dtype[Any], rounder: Rounder
) -> list[StoredTensor]:
    outputs, inputs = target.shape
    blocks, stored = scheme.blocks(inputs), CODES[scheme.bits, scheme.symmetric]

    def pack(rounded: Rounded, rows: int) -> Packed:
        codes = rounded.codes.T.reshape(rows, -1)[:, :inputs]
        scales = rounded.scales.reshape(rows, blocks)
        if scheme.symmetric:
            # Half the range lower: exact modulo 2⁸, and after it modulo 2⁴.
            return codes - np.uint8(1 << (scheme.bits - 1)), scales
        return codes, scales, rounded.offsets.reshape(rows, blocks)

    parts = rounded_parts(target, scheme.grid(dtype), rounder, pack)

    def columns(rows: Content, width: int, kind: np.dtype[Any]) -> Content:
        """Blocks of rows [.., width] as one [width, out], packed if there are two in a byte."""

        def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
            result = np.empty((width, outputs), np.uint8 if kind == stored else kind)
            row = 0
            for block in rows(checkpoint):
                result[:, row : row + len(block)] = block.T
                row += len(block)
            yield _pack(result) if kind == stored and scheme.bits == 4 else result

        return content

    def tensor(suffix: str, rows: Content, width: int, kind: np.dtype[Any]) -> StoredTensor:
        name, shape = f"{target.name}.{suffix}", (width, outputs)
        return StoredTensor(name, shape, kind, columns(rows, width, kind))

    others = [tensor("scales", parts.other(1), blocks, dtype)]
    if not scheme.symmetric:
        others.append(tensor("zero_points", parts.other(2), blocks, stored))
    codes = tensor("codes", parts.first, inputs, stored)
    count = Count(target, scheme.name, sum(item.nbytes for item in (codes, *others)))
    return [replace(codes, count=count), *others]


def _pack(codes: np.ndarray) -> np.ndarray:
    """Codes as uint8, of which the low halves count, two in each byte."""
    flat = np.pad(codes.reshape(-1), (0, codes.size % 2))
    low, high = flat[0::2] & np.uint8(15), flat[1::2] << np.uint8(4)
    return np.asarray(low | high)
