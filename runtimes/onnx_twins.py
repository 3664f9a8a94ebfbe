"""What a graph has otherwise than another one of the same model, without running either.

A run shows what its tokens touch: of a graph that reads other rows for tokens which no text has,
crosses keys and values on their way into the cache, or lets padding be seen, a short one shows
nothing. The graphs of a folder are one graph; one of them may choose the positions that get logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, TensorProto

from runtimes.onnx_data import PARAMETER, place_of, stored_array
from runtimes.onnx_folder import module_of

# What choosing positions is made of; the last one takes the hidden states.
CHOOSES, CHOSEN = {"Neg", "Reshape", "Slice"}, "Slice"

# Operator, domain, inputs and attributes.
Step = tuple[str, str, tuple[str, ...], tuple[bytes, ...]]


def apart(first: Path, second: Path) -> list[str]:
    """Modules and tensors, by the checkpoint's names, that `second` has otherwise than `first`.

    `first` may choose positions where `second` does not. Steps come in their order, then tensors.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    ours, theirs = _graph(first), _graph(second)
    steps, twins = dict(_steps(ours, {})), dict(_steps(theirs, {}))
    more = [node for node in ours.node if tuple(node.output) not in twins]
    if all(node.op_type in CHOOSES for node in more):
        passed = {node.output[0]: node.input[0] for node in more if node.op_type == CHOSEN}
        steps = {outputs: step for outputs, step in _steps(ours, passed) if outputs in twins}
    found = [_module(node) for node in theirs.node if _differs(node, steps, twins)]
    found += [_module(node) for node in ours.node if tuple(node.output) in steps.keys() - twins]
    stored = {item.name: item for item in ours.initializer}
    found += [
        _parameter(item.name)
        for item in theirs.initializer
        if not _same(stored.get(item.name), first.parent, item, second.parent)
    ]
    return [*dict.fromkeys(found)]


def _graph(path: Path) -> GraphProto:
    try:
        return onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _steps(graph: GraphProto, passed: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Step]]:
    """Each node by its results; values that are `passed` on stand for what they were made of."""
    for node in graph.node:
        inputs = tuple(passed.get(name, name) for name in node.input)
        attributes = sorted(item.SerializeToString(deterministic=True) for item in node.attribute)
        yield tuple(node.output), (node.op_type, node.domain, inputs, tuple(attributes))


def _differs(
    node: NodeProto,
    steps: Mapping[tuple[str, ...], Step],
    twins: Mapping[tuple[str, ...], Step],
) -> bool:
    outputs = tuple(node.output)
    return steps.get(outputs) != twins[outputs]


def _same(ours: TensorProto | None, folder: Path, theirs: TensorProto, other: Path) -> bool:
    """Whether both are the same values: mostly they lie at the same place of the same file."""
    if ours is None or ours.data_type != theirs.data_type or ours.dims != theirs.dims:
        return False
    if (place := place_of(ours, folder)) is not None and place == place_of(theirs, other):
        return True
    values, more = stored_array(ours, folder), stored_array(theirs, other)
    return bool(np.array_equal(values, more))


def _module(node: NodeProto) -> str:
    name = next(filter(None, (node.name, *node.output)), "")
    return module_of(name) or name


def _parameter(name: str) -> str:
    match = PARAMETER.match(name)
    return match[0] if match else name
