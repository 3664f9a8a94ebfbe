"""The token table: looked up as the embedding, multiplied with as the head, stored once if tied.

`rows` and `project` of one table use the same stored tensors, whatever they are stored as.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from export.onnx.blocks import BlockScheme
from export.onnx.graph import CONTRIB, Graph, StoredTensor, element_type
from export.onnx.nbits import BlockTensors, block_tensors, matmul_nbits
from export.onnx.weights import plain
from export.rounding import Rounder
from export.rounding.cast import FLOAT32
from export.targets import Target


class Table(Protocol):
    """A [vocab, hidden] weight in a graph whose activations are of one dtype."""

    def rows(self, graph: Graph, ids: str, path: str) -> str:
        """Rows of the tokens `ids` [batch, sequence]: [batch, sequence, hidden]."""

    def project(self, graph: Graph, x: str, path: str, output: str) -> None:
        """Name the logits of x [batch, positions, hidden] `output`: float32 [.., .., vocab]."""


# (weight, whether it is embedding and head at once) → its table
MakeTable = Callable[[Target, bool], Table]


@dataclass(frozen=True)
class FloatTable:
    """Floats, `stored` in one type and cast to the activations' `dtype` where they differ."""

    weight: Target
    stored: np.dtype[Any]
    dtype: np.dtype[Any]

    def rows(self, graph: Graph, ids: str, path: str) -> str:
        """See `Table`."""
        rows = graph.node("Gather", [graph.store(self._tensor), ids], path)
        return self._cast(graph, rows, path)

    def project(self, graph: Graph, x: str, path: str, output: str) -> None:
        """See `Table`. Gemm reads the weight as the embedding stores it.

        Measured against Transpose + MatMul and FusedMatMul on CPU: as fast or faster, no second
        copy in the file, and a standard operator that WebGPU has too.
        """
        vocab, hidden = self.weight.shape
        flat = graph.constant("flat_shape", np.array([-1, hidden], np.int64))
        rows = graph.node("Reshape", [x, flat], f"{path}/rows")
        weight = self._cast(graph, graph.store(self._tensor), f"{path}/weight")
        y = graph.node("Gemm", [rows, weight], path, transB=1)
        # Callers sample in float32; without this, every one of them would convert.
        y = graph.node("Cast", [y], path, to=element_type(FLOAT32)) if self.dtype != FLOAT32 else y
        leading = graph.node("Shape", [x], f"{path}/leading", start=0, end=2)
        size = graph.constant("vocab_size", np.array([vocab], np.int64))
        shape = graph.node("Concat", [leading, size], f"{path}/shape", axis=0)
        graph.emit("Reshape", [y, shape], path, [output])

    @cached_property
    def _tensor(self) -> StoredTensor:
        return plain(self.weight, self.stored)

    def _cast(self, graph: Graph, value: str, path: str) -> str:
        if self.stored == self.dtype:
            return value
        return graph.node("Cast", [value], path, to=element_type(self.dtype))


@dataclass(frozen=True)
class BlockTable:
    """Blocks as MatMulNBits stores them.

    Rows are looked up by GatherBlockQuantized where it may be used (`native`; older builds for
    browsers have none), else by standard operators that unpack the few rows that were looked up.
    """

    weight: Target
    scheme: BlockScheme
    dtype: np.dtype[Any]
    rounder: Rounder
    native: bool
    shared: bool

    def rows(self, graph: Graph, ids: str, path: str) -> str:
        """See `Table`."""
        find = self._native_rows if self.native else self._portable_rows
        rows = find(graph, ids, path)
        hidden = self.weight.shape[1]
        if hidden % self.scheme.block:  # the last block's padding
            bounds = [_ints(graph, name, [at]) for name, at in (("zero", 0), ("hidden", hidden))]
            rows = graph.node("Slice", [rows, *bounds, _ints(graph, "last_axis", [-1])], path)
        return rows

    def project(self, graph: Graph, x: str, path: str, output: str) -> None:
        """See `Table`."""
        if self.dtype == FLOAT32:
            matmul_nbits(graph, x, self.weight, self._tensors, path, output)
            return
        y = matmul_nbits(graph, x, self.weight, self._tensors, path)
        graph.emit("Cast", [y], path, [output], to=element_type(FLOAT32))

    @cached_property
    def _tensors(self) -> BlockTensors:
        return block_tensors(self.weight, self.scheme, self.dtype, self.rounder)

    def _native_rows(self, graph: Graph, ids: str, path: str) -> str:
        vocab = self.weight.shape[0]
        tensors = self._tensors
        flat = replace(tensors.codes, shape=(vocab, tensors.codes.size // vocab))
        if self.shared:
            graph.store(tensors.codes)
            flat = replace(
                flat, name=f"{flat.name}.rows", count=None, same_bytes_as=tensors.codes.name
            )
        parts = [tensors.scales, *([tensors.zeros] if tensors.zeros else [])]
        output = f"{path}/GatherBlockQuantized/output_0"
        graph.emit(
            "GatherBlockQuantized",
            [graph.store(flat), ids, *map(graph.store, parts)],
            path,
            [output],
            domain=CONTRIB,
            gather_axis=0,
            quantize_axis=1,
            bits=self.scheme.bits,
            block_size=self.scheme.block,
        )
        return graph.typed(output, self.dtype, [None, None, flat.shape[1] * self.scheme.per_byte])

    def _portable_rows(self, graph: Graph, ids: str, path: str) -> str:
        scheme, last = self.scheme, _ints(graph, "last_axis", [-1])
        blocks = scheme.blocks(self.weight.shape[1])
        codes, scales, *zeros = self._tensors.store(graph)
        values = self._looked_up(graph, codes, ids, f"{path}/codes", [0, 0, blocks, scheme.block])
        if zeros:
            points = self._looked_up(graph, zeros[0], ids, f"{path}/zero_points", [0, 0, -1])
            bounds = [_ints(graph, name, [at]) for name, at in (("zero", 0), ("blocks", blocks))]
            points = graph.node("Slice", [points, *bounds, last], f"{path}/zero_points")
            zero = graph.node("Unsqueeze", [points, last], f"{path}/zero_points")
        else:
            middle = np.array(1 << (scheme.bits - 1), self.dtype)
            zero = graph.constant(f"middle_of_{scheme.bits}_bits", middle)
        centred = graph.node("Sub", [values, zero], path)
        steps = graph.node("Gather", [scales, ids], f"{path}/scales")
        steps = graph.node("Unsqueeze", [steps, last], f"{path}/scales")
        product = graph.node("Mul", [centred, steps], path)
        return graph.node("Reshape", [product, _ints(graph, "row_shape", [0, 0, -1])], path)

    def _looked_up(self, graph: Graph, packed: str, ids: str, path: str, shape: list[int]) -> str:
        """Rows of packed codes as floats of `shape`, neighbours of one byte side by side."""
        codes = graph.node("Gather", [packed, ids], path)
        if self.scheme.per_byte == 2:
            last = _ints(graph, "last_axis", [-1])
            mask = graph.constant("low_bits", np.array(15, np.uint8))
            shift = graph.constant("half_byte", np.array(4, np.uint8))
            halves = (
                graph.node("BitwiseAnd", [codes, mask], f"{path}/low"),
                graph.node("BitShift", [codes, shift], f"{path}/high", direction="RIGHT"),
            )
            columns = [graph.node("Unsqueeze", [h, last], h.rsplit("/", 2)[0]) for h in halves]
            codes = graph.node("Concat", columns, path, axis=-1)
        values = graph.node("Cast", [codes], path, to=element_type(self.dtype))
        name = "x".join(map(str, shape))
        return graph.node("Reshape", [values, _ints(graph, f"shape_{name}", shape)], path)


def _ints(graph: Graph, name: str, values: list[int]) -> str:
    return graph.constant(name, np.array(values, np.int64))
