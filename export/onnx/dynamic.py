"""Dynamic quantisation: 8-bit weights per output channel, activations rounded while running.

What `onnxruntime.quantization.quantize_dynamic` makes of a MatMul, with standard operators only:
DynamicQuantizeLinear → MatMulInteger → Cast → Mul. ONNX Runtime fuses them. Activations share one
scale per call, so that a model with outliers suffers: SmolLM2 does. `q8` keeps them in float.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from export.checkpoint import Checkpoint
from export.onnx.graph import Count, Graph, StoredTensor, element_type
from export.onnx.linear import EmitLinear
from export.onnx.rounded import Packed, rounded_parts
from export.rounding import Grid, Kind, Rounded, Rounder, Rules
from export.rounding.cast import FLOAT32
from export.rounding.grid import WHOLE_ROW
from export.targets import Target

STRIP = 64  # rows rounded and transposed at once


@dataclass(frozen=True)
class DynamicScheme:
    """Its name as a storage, and what weights are stored on."""

    name: str
    grid: Grid


def _channels(kind: Kind) -> Grid:
    return Grid(kind, 8, WHOLE_ROW, FLOAT32, Rules.ONNXRUNTIME)


SIGNED = DynamicScheme("int8", _channels(Kind.CENTRED))
UNSIGNED = DynamicScheme("uint8", _channels(Kind.ZERO_POINT))


def dynamic_linear(scheme: DynamicScheme, rounder: Rounder) -> EmitLinear:
    """Multiply 8-bit integers; float32 outside."""

    def emit(graph: Graph, x: str, weight: Target, path: str) -> str:
        codes, scales, zeros = _tensors(weight, scheme, rounder)
        quantised = [f"{path}/input/{part}" for part in ("codes", "scale", "zero_point")]
        graph.emit("DynamicQuantizeLinear", [x], path, quantised)
        operands = [quantised[0], graph.store(codes), quantised[2]]
        operands += [graph.store(zeros)] if zeros else []
        y = graph.node("MatMulInteger", operands, path)
        y = graph.node("Cast", [y], path, to=element_type(FLOAT32))
        scale = graph.node("Mul", [quantised[1], graph.store(scales)], f"{path}/scale")
        return graph.node("Mul", [y, scale], path)

    return emit


def _tensors(
    target: Target, scheme: DynamicScheme, rounder: Rounder
) -> tuple[StoredTensor, StoredTensor, StoredTensor | None]:
    """Codes [in, out], the layout of MatMulInteger's right operand; the rest per output channel."""
    outputs, inputs = target.shape
    grid, kind = scheme.grid, scheme.grid.code_dtype

    def pack(rounded: Rounded, rows: int) -> Packed:
        zeros = [rounded.offsets] if grid.has_zero_points else []
        return rounded.codes, rounded.scales, *zeros

    parts = rounded_parts(target, grid, rounder, pack, STRIP * inputs)

    def codes(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        result = np.empty((inputs, outputs), kind)
        end = 0
        for strip in parts.first(checkpoint):
            start, end = end, end + strip.shape[1]
            result[:, start:end] = strip
        yield result

    scales = StoredTensor(f"{target.name}.scales", (outputs,), FLOAT32, parts.other(1))
    zeros = (
        StoredTensor(f"{target.name}.zero_points", (outputs,), kind, parts.other(2))
        if grid.has_zero_points
        else None
    )
    extra = scales.nbytes + (zeros.nbytes if zeros else 0)
    count = Count(target, scheme.name, inputs * outputs + extra)
    shape = (inputs, outputs)
    return StoredTensor(f"{target.name}.codes", shape, kind, codes, count), scales, zeros
