"""Weights in blocks of 4 or 8 bits, in the layout of ONNX Runtime's MatMulNBits.

Layout (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, MatMulNBits):
codes uint8 [out, blocks, block × bits ÷ 8], the first of two 4-bit codes in the low half; scales
[out, blocks] in the type of the activations; zero points uint8 [out, blocks × bits ÷ 8], packed
alike. A last block that is not full is padded with code 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.architecture import Target
from export.checkpoint import Checkpoint
from export.onnx.graph import CONTRIB, Count, Graph, StoredTensor
from export.onnx.linear import EmitLinear
from export.onnx.weights import Parts
from export.quantization import block as rounding
from export.quantization.cast import FLOAT32

UINT8 = np.dtype(np.uint8)
# Values per step: the temporaries of rounding stay in the L2 cache.
GROUP_VALUES = 64_000

Round = Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class BlockScheme:
    """`bits` per code, `block` values per scale; symmetric, or with a zero point per block.

    `accuracy_level` is MatMulNBits's: 0 computes in the activations' type, 4 lets a CPU round
    activations to 8 bits.
    """

    name: str
    bits: int
    block: int
    symmetric: bool
    accuracy_level: int = 0

    @property
    def per_byte(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits

    def blocks(self, columns: int) -> int:
        """Blocks of a row; the last one may be padded."""
        return -(-columns // self.block)


@dataclass(frozen=True)
class Rounded:
    """Rows as they are stored; `zeros` is empty when the scheme is symmetric."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray


def round_rows(rows: np.ndarray, scheme: BlockScheme, dtype: np.dtype[Any], name: str) -> Rounded:
    """Round and pack float32 [rows, in] with scales of `dtype`.

    Raises:
        InputError: a scale overflows float16.
    """
    count, columns = rows.shape
    blocks = scheme.blocks(columns)
    padding = blocks * scheme.block - columns
    codes, scales, zeros = round_lanes(rows, scheme, dtype, name)
    if padding:
        codes[scheme.block - padding :, blocks - 1 :: blocks] = 0
    packed = _pack(codes, scheme.bits).T.reshape(count, blocks, -1)
    packed_zeros = np.empty((count, 0), np.uint8) if zeros is None else _pack_zeros(zeros, scheme)
    return Rounded(np.ascontiguousarray(packed), scales, packed_zeros)


def round_lanes(
    rows: np.ndarray, scheme: BlockScheme, dtype: np.dtype[Any], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Round float32 [rows, in] without packing.

    Returns:
        codes uint8 [block, rows × blocks], scales of `dtype` and zero points uint8 [rows, blocks],
        None if the scheme is symmetric. What pads a last block has codes too.

    Raises:
        InputError: a scale overflows float16.
    """
    count, columns = rows.shape
    blocks = scheme.blocks(columns)
    padding = blocks * scheme.block - columns
    if padding:
        rows = np.pad(rows, ((0, 0), (0, padding)))
    lanes = rows.reshape(-1, scheme.block).T.astype(FLOAT32, order="C")  # [block, rows × blocks]
    if scheme.symmetric:
        scales, codes = rounding.symmetric(lanes, scheme.bits, dtype, name)
        return codes, scales.reshape(count, blocks), None
    scales, points, codes = rounding.asymmetric(lanes, scheme.bits, dtype, name)
    return codes, scales.reshape(count, blocks), points.reshape(count, blocks)


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


def block_tensors(target: Target, scheme: BlockScheme, dtype: np.dtype[Any]) -> BlockTensors:
    """Describe a weight [out, in] in blocks."""
    rows, columns = target.shape
    blocks = scheme.blocks(columns)

    def rounded(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        result = round_rows(rows, scheme, dtype, target.name)
        return result.codes, result.scales, result.zeros

    parts = rounded_parts(target, rounded)
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


def block_linear(scheme: BlockScheme, dtype: np.dtype[Any]) -> EmitLinear:
    """Multiply with MatMulNBits, which unpacks the blocks while it multiplies."""
    return lambda graph, x, weight, path: matmul_nbits(
        graph, x, weight, block_tensors(weight, scheme, dtype), path
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


def rounded_parts(target: Target, rounded: Round) -> Parts:
    """What `rounded` makes of float rows [n, in], a few rows at a time."""
    step = max(1, GROUP_VALUES // target.shape[1])

    def produce(checkpoint: Checkpoint) -> Iterator[tuple[np.ndarray, ...]]:
        for rows in checkpoint.blocks(target):
            for start in range(0, len(rows), step):
                yield rounded(rows[start : start + step])

    return Parts(produce)


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes uint8 [n, …] → bytes: with 4 bits, neighbours share one, the first in the low half."""
    return codes if bits == 8 else codes[0::2] | (codes[1::2] << np.uint8(4))


def _pack_zeros(points: np.ndarray, scheme: BlockScheme) -> np.ndarray:
    """Zero points uint8 [rows, blocks] → bytes [rows, …]; the odd one's partner is the middle."""
    missing = -points.shape[1] % scheme.per_byte
    middle = 1 << (scheme.bits - 1)
    padded = np.pad(points, ((0, 0), (0, missing)), constant_values=middle)
    return np.ascontiguousarray(_pack(padded.T, scheme.bits).T)
