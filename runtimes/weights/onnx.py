"""Read the weights of an ONNX graph: what each one is stored as follows from the node that uses it.

Initializers carry the checkpoint's names; their layout is never taken from the name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from export.artifact import Artifact
from export.errors import InputError
from runtimes.weights.fused import Heads, split

WEIGHT = ".weight"
# Weights whose outputs are added to the residual stream. A graph may compute with a smaller one: a
# constant that the embedding's rows are multiplied with is then in these weights too.
INTO_RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
RESIDUAL_SCALE = "residual_scale"


def _transposed(node: NodeProto) -> bool:
    """Whether a matrix multiplication holds its right operand as [in, out]."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    return not attributes.get("transB", 0)


def _as_is(node: NodeProto) -> bool:
    return False


# Operator that uses a weight → whether the weight is stored transposed.
LAYOUTS: dict[str, Callable[[NodeProto], bool]] = {
    "Gather": _as_is,
    "Gemm": _transposed,
    "FusedMatMul": _transposed,
    "MatMul": _transposed,
    "RMSNormalization": _as_is,
    "SimplifiedLayerNormalization": _as_is,
    "SkipSimplifiedLayerNormalization": _as_is,
    "Transpose": _as_is,
}


def read(artifact: Artifact) -> dict[str, np.ndarray]:
    """See `runtimes.weights.dequantise`.

    Raises:
        InputError: a damaged file, or a weight whose use this reader does not know.
    """
    graphs = [item.path for item in artifact.manifest.outputs if item.path.endswith(".onnx")]
    if not graphs:
        raise InputError(f"{artifact.path}: no .onnx file")
    path = artifact.path / graphs[0]  # several graphs of one artifact share their data files
    config_path = artifact.path / "config.json"
    try:
        graph = onnx.load(path, load_external_data=False).graph
        heads = Heads.of(json.loads(config_path.read_text("utf-8")))
        tensors: dict[str, np.ndarray] = {}
        for initializer in graph.initializer:
            if initializer.name.endswith(WEIGHT):
                values = _values(graph, initializer, path)
                tensors.update(split(initializer.name, values, heads))
        scale = _residual_scale(graph)
        for name, values in tensors.items():
            if name.endswith(INTO_RESIDUAL):
                tensors[name] = values / scale
    except (OSError, ValueError, KeyError, DecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); export the model again") from None
    return tensors


def _residual_scale(graph: GraphProto) -> np.ndarray:
    scales = [item for item in graph.initializer if item.name == RESIDUAL_SCALE]
    return np.asarray(numpy_helper.to_array(scales[0]) if scales else 1, np.float32)


def _values(graph: GraphProto, initializer: TensorProto, path: Path) -> np.ndarray:
    users = [node for node in graph.node if initializer.name in node.input]
    layouts = {LAYOUTS[node.op_type](node) if node.op_type in LAYOUTS else None for node in users}
    if layouts not in ({True}, {False}):
        raise InputError(
            f"{path}: {initializer.name} is used by {sorted({node.op_type for node in users})},"
            " which the reader does not know"
        )
    values = numpy_helper.to_array(initializer, str(path.parent)).astype(np.float32)
    return np.ascontiguousarray(values.T) if layouts == {True} else values
