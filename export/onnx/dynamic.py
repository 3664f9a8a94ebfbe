"""Dynamic quantisation: 8-bit weights per output channel, activations rounded while running.

What `onnxruntime.quantization.quantize_dynamic` makes of a MatMul, with standard operators only:
DynamicQuantizeLinear → MatMulInteger → Cast → Mul. ONNX Runtime fuses them. Activations share one
scale per call, so that a model with outliers suffers: SmolLM2 does. `q8` keeps them in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.architecture import Target
from export.checkpoint import Checkpoint
from export.onnx.graph import Count, Graph, StoredTensor, element_type
from export.onnx.linear import EmitLinear
from export.onnx.weights import Parts
from export.quantization.cast import FLOAT32
from export.quantization.channel import int8_channels, uint8_channels

STRIP = 64  # rows rounded and transposed at once

# float32 [channels, in] → codes [channels, in], scales [channels], zero points [channels] if any
Round = Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class DynamicScheme:
    """How weights are rounded; `zeros` says whether that yields zero points."""

    name: str
    dtype: np.dtype[Any]
    round: Round
    zeros: bool


SIGNED = DynamicScheme("int8", np.dtype(np.int8), int8_channels, zeros=False)
UNSIGNED = DynamicScheme("uint8", np.dtype(np.uint8), uint8_channels, zeros=True)


def dynamic_linear(scheme: DynamicScheme) -> EmitLinear:
    """Multiply 8-bit integers; float32 outside."""

    def emit(graph: Graph, x: str, weight: Target, path: str) -> str:
        codes, scales, zeros = _tensors(weight, scheme)
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
    target: Target, scheme: DynamicScheme
) -> tuple[StoredTensor, StoredTensor, StoredTensor | None]:
    """Codes [in, out], the layout of MatMulInteger's right operand; the rest per output channel."""
    outputs, inputs = target.shape

    def produce(checkpoint: Checkpoint) -> Iterator[tuple[np.ndarray, ...]]:
        for block in checkpoint.blocks(target):
            for start in range(0, len(block), STRIP):
                yield scheme.round(block[start : start + STRIP].astype(np.float32))

    parts = Parts(produce)

    def codes(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        result = np.empty((inputs, outputs), scheme.dtype)
        row = 0
        for strip in parts.first(checkpoint):
            result[:, row : row + len(strip)] = strip.T
            row += len(strip)
        yield result

    scales = StoredTensor(f"{target.name}.scales", (outputs,), FLOAT32, parts.other(1))
    zeros = (
        StoredTensor(f"{target.name}.zero_points", (outputs,), scheme.dtype, parts.other(2))
        if scheme.zeros
        else None
    )
    extra = scales.nbytes + (zeros.nbytes if zeros else 0)
    count = Count(target, scheme.name, inputs * outputs + extra)
    shape = (inputs, outputs)
    return StoredTensor(f"{target.name}.codes", shape, scheme.dtype, codes, count), scales, zeros
