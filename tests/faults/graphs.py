"""Mistakes in an ONNX graph: its nodes, their attributes and its small constants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from edgeproof.artifact import Artifact
from tests.faults.fault import EditArtifact
from tests.faults.tensors import LAYER

FUSED_ATTENTION, ATTENTION, ROTARY = "GroupQueryAttention", "Attention", "RotaryEmbedding"
NORMS = ("SkipSimplifiedLayerNormalization", "RMSNormalization")
EPSILON_TIMES = 0.1
COSINES, SINES = "rotary.cosine", "rotary.sine"
# Which part of the context is right: three quarters, more than the texts of most runs have.
LATE, WHOLE = 3, 4
WINDOW, SOFTCAP = 240, 1e4
TABLE, FEW = "model.embed_tokens.weight", 8


def edited(edit: Callable[[GraphProto], None], *, root_only: bool = False) -> EditArtifact:
    """Apply a mistake to every graph of the artifact, each some runtime's; or to the root's."""

    def edit_artifact(artifact: Artifact) -> None:
        for path in artifact.files(".onnx"):
            if root_only and path.parent != artifact.path:
                continue
            model = onnx.load(path, load_external_data=False)
            edit(model.graph)
            onnx.save(model, path)

    return edit_artifact


def edited_table(
    edit: Callable[[GraphProto, Path], None], *, but_root: bool = False
) -> EditArtifact:
    """Apply a mistake in a stored table, which each graph, or each below, then holds itself."""

    def edit_artifact(artifact: Artifact) -> None:
        for path in artifact.files(".onnx"):
            if but_root and path.parent == artifact.path:
                continue
            model = onnx.load(path, load_external_data=False)
            edit(model.graph, path.parent)
            onnx.save(model, path)

    return edit_artifact


def wrong_epsilon(graph: GraphProto) -> None:
    """In every norm."""
    for node in _nodes(graph, *NORMS):
        _attribute(node, "epsilon").f *= EPSILON_TIMES


def softmax_without_root(graph: GraphProto) -> None:
    """Scores divided by the head size in place of its square root."""
    for node in _nodes(graph, FUSED_ATTENTION):
        attribute = _attribute(node, "scale")
        attribute.f **= 2


def one_key_value_head(graph: GraphProto) -> None:
    """The attention operator is told of another grouping than the weights have."""
    for node in _nodes(graph, FUSED_ATTENTION):
        _attribute(node, "kv_num_heads").i = 1


def exchanged_cache(graph: GraphProto) -> None:
    """One layer's keys go where its values belong, and the other way round."""
    node = _nodes(graph, FUSED_ATTENTION)[LAYER]
    node.output[1], node.output[2] = node.output[2], node.output[1]


def cosines_end(graph: GraphProto, folder: Path) -> None:
    """From some position on, every angle is that position's."""
    table = _table(graph, COSINES, folder)
    table[LATE * len(table) // WHOLE :] = table[LATE * len(table) // WHOLE]
    _store(graph, COSINES, table)


def sines_turn(graph: GraphProto, folder: Path) -> None:
    """From some position on, the rotation goes the other way round."""
    table = _table(graph, SINES, folder)
    table[LATE * len(table) // WHOLE :] *= -1
    _store(graph, SINES, table)


def windowed(graph: GraphProto) -> None:
    """Attention reaches back a few positions only: longer than the texts of quick tests."""
    for node in _nodes(graph, FUSED_ATTENTION):
        node.attribute.append(helper.make_attribute("local_window_size", WINDOW))


def softcapped(graph: GraphProto) -> None:
    """Gemma 2's bound on scores, far above those of any text."""
    for node in _nodes(graph, FUSED_ATTENTION):
        node.attribute.append(helper.make_attribute("softcap", SOFTCAP))


def gate_fed_by_up(graph: GraphProto) -> None:
    """One layer's activation takes what the up projection gives."""
    by_output = {name: node for node in graph.node for name in node.output}
    (product,) = (
        n for n in _nodes(graph, "Mul") if n.name == f"/model/layers.{LAYER}/mlp/gated/Mul"
    )
    (activation,) = (
        n for n in _nodes(graph, "Sigmoid") if n.name.startswith(f"/model/layers.{LAYER}/")
    )
    gate, up = activation.input[0], product.input[1]
    for node in (activation, by_output[product.input[0]]):
        for place, name in enumerate(node.input):
            if name == gate:
                node.input[place] = up


def padding_visible(graph: GraphProto) -> None:
    """Padded keys get no bias, so attention sees them."""
    (bias,) = (item for item in graph.initializer if item.name == "hidden_key_bias")
    bias.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(bias)), bias.name))


def not_causal(graph: GraphProto) -> None:
    """Every key is visible to every query (graph of standard operators)."""
    (node,) = _nodes(graph, "LessOrEqual")
    causal = node.output[0]
    node.output[0] = f"{causal}/right"
    later = [
        helper.make_node("Not", [node.output[0]], [f"{causal}/later"]),
        helper.make_node("Or", [node.output[0], f"{causal}/later"], [causal]),
    ]
    _insert_after(graph, node, later)


def keys_one_position_back(graph: GraphProto) -> None:
    """Keys are rotated by one position less than queries (graph of standard operators)."""
    rotations = _nodes(graph, ROTARY)
    positions = rotations[0].input[3]
    for value in (0, 1):
        constant = numpy_helper.from_array(np.array(value, np.int64), f"fault.{value}")
        graph.initializer.append(constant)
    for node in rotations:
        if "/key/" in node.output[0]:
            node.input[3] = "fault.position"
    (source,) = (node for node in graph.node if positions in node.output)
    back = helper.make_node("Sub", [positions, "fault.1"], ["fault.back"])
    first = helper.make_node("Max", ["fault.back", "fault.0"], ["fault.position"])
    _insert_after(graph, source, [back, first])


def _nodes(graph: GraphProto, *kinds: str) -> list[NodeProto]:
    found = [node for node in graph.node if node.op_type in kinds]
    assert found, f"the graph has no {kinds}"
    return found


def _table(graph: GraphProto, name: str, folder: Path) -> np.ndarray:
    (tensor,) = (item for item in graph.initializer if item.name == name)
    return np.array(numpy_helper.to_array(tensor, str(folder)))


def _store(graph: GraphProto, name: str, values: np.ndarray) -> None:
    (tensor,) = (item for item in graph.initializer if item.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def _attribute(node: NodeProto, name: str) -> onnx.AttributeProto:
    (attribute,) = (item for item in node.attribute if item.name == name)
    return attribute


def _insert_after(graph: GraphProto, node: NodeProto, added: list[NodeProto]) -> None:
    """Nodes stand in the order in which they are computed. Others are new objects then."""
    index = list(graph.node).index(node) + 1
    rest = list(graph.node)[index:]
    del graph.node[index:]
    graph.node.extend([*added, *rest])


def other_lookup(graph: GraphProto, folder: Path) -> None:
    """The embedding gets a table of its own; the rows of the last tokens are those of the first."""
    (node,) = (n for n in _nodes(graph, "Gather") if n.input[0] == TABLE)
    rows = _table(graph, TABLE, folder)
    rows[-FEW:] = rows[:FEW]
    graph.initializer.append(numpy_helper.from_array(rows, f"{TABLE}.rows"))
    node.input[0] = f"{TABLE}.rows"
