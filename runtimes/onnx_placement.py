"""Which nodes of a graph may run on the CPU although a GPU was asked for.

ONNX Runtime leaves shape computations on the CPU on purpose: they are a few integers that its
kernels need there anyway. Invariant: everything that touches a floating-point value is on the GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from edgeproof.errors import InputError

CPU = "CPUExecutionProvider"
# The setting of a session by which it says where each node runs, and its value.
RECORDED = ("session.record_ep_graph_assignment_info", "1")
INTEGERS = {
    TensorProto.BOOL,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
}
# Its output says how large its input is, not what is in it.
SHAPE = {"Shape", "Size"}


def require_off_cpu(session: Any, path: Path, device: str) -> None:
    """Refuse a session that computes on the CPU; it was opened with `RECORDED`.

    Raises:
        InputError: naming the first of the nodes that would.
    """
    assigned = session.get_provider_graph_assignment_info()
    on_cpu = [node.name for part in assigned if part.ep_name == CPU for node in part.get_nodes()]
    graph = onnx.load(path, load_external_data=False).graph
    computing = computing_nodes(graph, on_cpu)
    if computing:
        raise InputError(
            f"{path}: {len(computing)} of {len(graph.node)} nodes would run on the CPU, not on"
            f" {device}: {', '.join(computing[:5])}"
        )


def computing_nodes(graph: GraphProto, names: Collection[str]) -> list[str]:
    """Those of the named nodes that read floating-point values, or that the graph does not have.

    A node that only reads integers is a shape computation, or makes the attention mask, whatever
    type it gives.
    """
    integers = set(_declared_integers(graph))
    known: set[str] = set()
    computing = []
    for node in graph.node:  # in topological order
        known.add(node.name)
        reads_integers = node.op_type in SHAPE or all(
            name in integers for name in node.input if name
        )
        if reads_integers and not _gives_floats(node):
            integers.update(node.output)
        if node.name in names and not reads_integers:
            computing.append(node.name)
    return computing + sorted(set(names) - known)


def _declared_integers(graph: GraphProto) -> Iterable[str]:
    for value in graph.input:
        if value.type.tensor_type.elem_type in INTEGERS:
            yield value.name
    for initializer in graph.initializer:
        if initializer.data_type in INTEGERS:
            yield initializer.name


def _gives_floats(node: NodeProto) -> bool:
    """Whether a node that reads integers makes floating-point values of them."""
    attributes = {item.name: item for item in node.attribute}
    if node.op_type == "Cast":
        return attributes["to"].i not in INTEGERS
    return any(
        item.type == AttributeProto.TENSOR and item.t.data_type not in INTEGERS
        for item in attributes.values()
    )
