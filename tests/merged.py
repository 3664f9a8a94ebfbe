"""Merged decoders as Optimum writes them: two graphs, with and without a cache, in one file."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from runtimes.onnxruntime import BRANCH


def merge(path: Path, target: Path) -> None:
    """Two branches over the same weights, an input that chooses, and a vocabulary without size."""
    whole = onnx.load(path)
    graph = whole.graph
    (logits,) = (item for item in graph.output if item.name == "logits")
    logits.type.tensor_type.shape.dim[-1].dim_param = "vocabulary"
    names = ("with_past", "no_past")
    then, other = (helper.make_graph(graph.node, name, [], graph.output) for name in names)
    flag = helper.make_tensor_value_info(BRANCH, TensorProto.BOOL, [1])
    outputs = [item.name for item in graph.output]
    chosen = helper.make_node("If", [BRANCH], outputs, then_branch=then, else_branch=other)
    inputs = [*graph.input, flag]
    merged = helper.make_graph([chosen], "merged", inputs, graph.output, graph.initializer)
    opsets = whole.opset_import
    onnx.save(helper.make_model(merged, opset_imports=opsets, ir_version=whole.ir_version), target)
