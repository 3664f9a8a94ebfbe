"""Collect an ONNX graph: nodes, inputs, outputs, small constants and external tensors.

Invariants: names are given by the caller and follow the checkpoint's module paths, so they are
stable and a viewer shows the architecture; a name has one meaning in a graph. Weights are only
described here, never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from edgeproof import __version__
from export.checkpoint import Checkpoint
from export.targets import Target

OPSET = 21
# Opset → the IR version that came with it; ONNX Runtime reads 10 since 1.18.
IR_VERSIONS = {21: 10, 23: 11}
CONTRIB = "com.microsoft"
INT4, UINT4 = np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4)
FOUR_BITS = (INT4, UINT4)

Item = TypeVar("Item")
Dim = int | str | None  # None: unknown, any size
# Yields C-contiguous arrays whose bytes, one after the other, are the tensor's.
Content = Callable[[Checkpoint], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Count:
    """What the manifest counts of a weight: its storage type and its bytes, scales included."""

    weight: Target
    type_name: str
    nbytes: int


@dataclass(frozen=True)
class StoredTensor:
    """An initializer in an external data file.

    `count` says which of the checkpoint's tensors it holds; None for a derived table and for the
    scales of a weight that is counted already. `same_bytes_as` names another stored tensor, of any
    shape, whose bytes these are: they are in the file once.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    content: Content
    count: Count | None = None
    same_bytes_as: str | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes in the file, where two 4-bit values share one."""
        return -(-self.size * self.bits // 8)

    @property
    def bits(self) -> int:
        """Of one element."""
        return 4 if self.dtype in FOUR_BITS else 8 * self.dtype.itemsize


@dataclass(frozen=True)
class Placement:
    """Where a stored tensor's bytes lie: file name relative to the folder of the data, offset."""

    tensor: StoredTensor
    file: str
    offset: int


def element_type(dtype: np.dtype[Any]) -> int:
    """The TensorProto.DataType of a NumPy dtype."""
    return int(helper.np_dtype_to_tensor_dtype(dtype))


@dataclass
class Graph:
    """A graph under construction. Methods return the name of the value that they add.

    `opset` is that of the standard operators, one of `IR_VERSIONS`.

    Raises:
        ValueError: by every method that adds, where the name has another meaning already.
    """

    opset: int = OPSET
    nodes: list[NodeProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: dict[str, ValueInfoProto] = field(default_factory=dict)
    values: dict[str, ValueInfoProto] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    stored: dict[str, StoredTensor] = field(default_factory=dict)
    # The values that inputs and nodes bring.
    _computed: set[str] = field(default_factory=set)

    def input(self, name: str, dtype: np.dtype[Any], shape: Sequence[Dim]) -> str:
        """Declare a graph input."""
        self._compute(name)
        self.inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: np.dtype[Any], shape: Sequence[Dim]) -> str:
        """Declare a graph output; some node must be told to produce this name."""
        _add(self.outputs, name, _value_info(name, dtype, shape))
        return name

    def typed(self, name: str, dtype: np.dtype[Any], shape: Sequence[Dim]) -> str:
        """State the type of a value that standard shape inference cannot know."""
        _add(self.values, name, _value_info(name, dtype, shape))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """A small constant inside the graph file; adding the same one twice is harmless."""
        if name in self._computed or name in self.stored:
            raise _clash(name)
        _add(self.constants, name, numpy_helper.from_array(value, name))
        return name

    def store(self, tensor: StoredTensor) -> str:
        """An initializer in the external data; adding the same one twice is harmless."""
        if tensor.name in self._computed or tensor.name in self.constants:
            raise _clash(tensor.name)
        _add(self.stored, tensor.name, tensor)
        return tensor.name

    def node(self, op: str, inputs: Sequence[str], path: str, **attributes: Any) -> str:
        """A node of the standard domain with one output. `path` is its module path."""
        return self.emit(op, inputs, path, [f"{path}/{op}/output_0"], **attributes)

    def emit(
        self, op: str, inputs: Sequence[str], path: str, outputs: Sequence[str], **attributes: Any
    ) -> str:
        """A node with named outputs (and a `domain` among the attributes); returns the first.

        An output with the empty name is one that nobody wants.
        """
        for name in filter(None, outputs):
            self._compute(name)
        self.nodes.append(
            helper.make_node(op, list(inputs), list(outputs), name=f"{path}/{op}", **attributes)
        )
        return outputs[0]

    def _compute(self, name: str) -> None:
        if name in self._computed or name in self.constants or name in self.stored:
            raise _clash(name)
        self._computed.add(name)

    def model(self, name: str, placements: Sequence[Placement], folder: str) -> ModelProto:
        """The finished model; `folder` is prefixed to the data files' names."""
        proto = GraphProto(name=name)
        proto.node.extend(self.nodes)
        proto.input.extend(self.inputs)
        proto.output.extend(self.outputs.values())
        proto.value_info.extend(self.values.values())
        proto.initializer.extend(self.constants.values())
        proto.initializer.extend(external_tensor(placement, folder) for placement in placements)
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain == CONTRIB for node in self.nodes):
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        return helper.make_model(
            proto,
            opset_imports=opsets,
            ir_version=IR_VERSIONS[self.opset],
            producer_name="edgeproof",
            producer_version=__version__,
        )


def _add(known: dict[str, Item], name: str, item: Item) -> None:
    if known.setdefault(name, item) != item:
        raise _clash(name)


def _clash(name: str) -> ValueError:
    return ValueError(f"{name!r} has another meaning in this graph already")


def _value_info(name: str, dtype: np.dtype[Any], shape: Sequence[Dim]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type(dtype), list(shape))


def external_tensor(placement: Placement, folder: str) -> TensorProto:
    """An initializer whose bytes lie in a data file; `folder` is prefixed to the file's name."""
    tensor = placement.tensor
    proto = TensorProto(
        name=tensor.name,
        dims=tensor.shape,
        data_type=element_type(tensor.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    where = {
        "location": f"{folder}{placement.file}",
        "offset": placement.offset,
        "length": tensor.nbytes,
    }
    for key, value in where.items():
        proto.external_data.add(key=key, value=str(value))
    return proto
