"""A name has one meaning in an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from export.checkpoint import Checkpoint
from export.onnx.graph import Graph, StoredTensor

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    yield np.zeros(2, np.float32)


def other_content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    yield np.ones(2, np.float32)


WEIGHT = StoredTensor("name", (2,), FLOAT32, content)
Add = Callable[[Graph], object]
CONSTANT: Add = lambda g: g.constant("name", np.array([1], np.int64))  # noqa: E731
STORED: Add = lambda g: g.store(WEIGHT)  # noqa: E731
INPUT: Add = lambda g: g.input("name", FLOAT32, [2])  # noqa: E731
NODE: Add = lambda g: g.emit("Neg", ["x"], "path", ["name"])  # noqa: E731
TYPED: Add = lambda g: g.typed("name", FLOAT32, [2])  # noqa: E731
OUTPUT: Add = lambda g: g.output("name", FLOAT32, [2])  # noqa: E731


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CONSTANT, lambda g: g.constant("name", np.array([2], np.int64))),
        (CONSTANT, lambda g: g.constant("name", np.array([1], np.int32))),
        (STORED, lambda g: g.store(replace(WEIGHT, shape=(1, 2)))),
        (STORED, lambda g: g.store(replace(WEIGHT, dtype=FLOAT16))),
        (STORED, lambda g: g.store(replace(WEIGHT, content=other_content))),
        (TYPED, lambda g: g.typed("name", FLOAT16, [2])),
        (OUTPUT, lambda g: g.output("name", FLOAT32, [3])),
        (NODE, NODE),
        (INPUT, INPUT),
        *(
            (first, second)
            for first in (CONSTANT, STORED, INPUT, NODE)
            for second in (CONSTANT, STORED, INPUT, NODE)
            if first is not second
        ),
    ],
)
def test_two_meanings_of_a_name_are_an_error(first: Add, second: Add) -> None:
    graph = Graph()
    first(graph)
    with pytest.raises(ValueError, match="'name' has another meaning in this graph already"):
        second(graph)


@pytest.mark.parametrize("add", [CONSTANT, STORED, TYPED, OUTPUT])
def test_the_same_twice_is_there_once(add: Add) -> None:
    graph = Graph()
    add(graph)
    once = graph.model("m", [], "")
    add(graph)
    assert graph.model("m", [], "") == once


def test_outputs_that_nobody_wants_share_the_empty_name() -> None:
    graph = Graph()
    graph.emit("SkipSimplifiedLayerNormalization", ["x", "y", "w"], "path", ["a", "", "", "b"])
    graph.emit("SkipSimplifiedLayerNormalization", ["x", "y", "w"], "path", ["c", "", "", "d"])
    assert len(graph.nodes) == 2
