"""Read the weights of an ONNX graph: what each one is stored as follows from the node that uses it.

Initializers carry the checkpoint's names, with a suffix where one weight is stored as several;
their layout is never taken from the name. Sources of the packed layouts: MatMulNBits, MatMulBnb4
and GatherBlockQuantized in
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, MatMulInteger and
DequantizeLinear in ONNX's own list of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from edgeproof.artifact import Artifact
from edgeproof.errors import DamagedExportError, InputError
from runtimes.norms import norm_offsets, out_norms
from runtimes.onnx_data import PARAMETER, place_of, stored_array
from runtimes.said import config_of
from runtimes.weights.fused import Heads
from runtimes.weights.stored import StoredWeights, by_rows

# NormalFloat4 (QLoRA, https://arxiv.org/abs/2305.14314, appendix E).
NF4_LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
# What gives the residual stream its values. A graph may compute with a smaller one: a
# constant that the embedding's rows are multiplied with is then in these weights too, or in those
# of norms that come after them.
INTO_RESIDUAL = (".o_proj.weight", ".o_proj.bias", ".down_proj.weight", ".down_proj.bias")
RESIDUAL_SCALE = "residual_scale"


def read(artifact: Artifact) -> StoredWeights:
    """See `runtimes.formats.dequantise`.

    Raises:
        InputError: a damaged file, or a weight whose use this reader does not know.
    """
    graphs = [item.path for item in artifact.manifest.outputs if item.path.endswith(".onnx")]
    if not graphs:
        raise InputError(f"{artifact.path}: no .onnx file")
    path = artifact.path / graphs[0]  # several graphs of one artifact share their data files
    config, ours = config_of(artifact.path), artifact.foreign is None
    try:
        graph = onnx.load(path, load_external_data=False).graph
        stored, heads = Stored(graph, path, int(config["hidden_size"]), ours), Heads.of(config)
        scale, offsets = _residual_scale(graph), norm_offsets(config)
        last = out_norms(config) or INTO_RESIDUAL
        sources = {
            name: partial(_values, stored, name, scale, last, offsets.get(name, 0.0))
            for name in stored.weights
        }
    except (OSError, ValueError, KeyError, DecodeError) as error:
        raise DamagedExportError(f"{path}: cannot be read ({error})") from None
    return StoredWeights(sources, heads, path)


def _values(
    stored: Stored, name: str, scale: np.ndarray, last: tuple[str, ...], offset: float
) -> np.ndarray:
    """`last` are the weights before the residual stream, `offset` is what a norm's has in it."""
    values = stored.weight(name)
    if scale != 1 and name.endswith(last):
        values = values / scale
    return values - np.float32(offset) if offset else values


def _residual_scale(graph: GraphProto) -> np.ndarray:
    scales = [item for item in graph.initializer if item.name == RESIDUAL_SCALE]
    return np.asarray(numpy_helper.to_array(scales[0]) if scales else 1, np.float32)


@dataclass(frozen=True)
class Stored:
    """A graph's initializers and the nodes that use them. `hidden` is the embedding's width.

    With `alike`, all nodes that a weight is read for have to take the same values.
    """

    graph: GraphProto
    path: Path
    hidden: int
    alike: bool = False

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """By name."""
        return {item.name: item for item in self.graph.initializer}

    @cached_property
    def weights(self) -> dict[str, list[NodeProto]]:
        """The checkpoint's names of the parameters, and the nodes that use any tensor of each."""
        users: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in (name for name in node.input if name in self.initializers):
                if parameter := PARAMETER.match(name):
                    users.setdefault(parameter[0], []).append(node)
        return users

    def value(self, name: str) -> np.ndarray:
        """The stored array."""
        return stored_array(self.initializers[name], self.path.parent)

    def weight(self, name: str) -> np.ndarray:
        """One weight, linears [out, in].

        Raises:
            InputError: an operator uses it that this reader does not know.
        """
        users = self.weights[name]
        known = [node for node in users if node.op_type in READERS]
        if not known or any(node.op_type not in {*READERS, *BESIDE} for node in users):
            raise InputError(
                f"{self.path}: {name} is used by {sorted({node.op_type for node in users})},"
                " which the reader does not know"
            )
        # A tied table is looked up and multiplied with: the multiplication says most about it.
        best = min(known, key=lambda node: list(READERS).index(node.op_type))
        values = READERS[best.op_type](self, best)
        places = self._places(best)
        for node in known if self.alike else ():
            # Several lookups have parts of one table.
            if node.op_type == best.op_type or self._places(node) <= places:
                continue
            if not np.array_equal(READERS[node.op_type](self, node), values):
                raise DamagedExportError(
                    f"{self.path}: {node.name} takes other values of {name} than {best.name}"
                )
        return values

    def _places(self, node: NodeProto) -> set[Any]:
        """Where the stored tensors of a node lie; of one in the graph itself its name."""
        stored = (self.initializers[name] for name in node.input if name in self.initializers)
        return {place_of(item, self.path.parent) or item.name for item in stored}


def _nbits(stored: Stored, node: NodeProto) -> np.ndarray:
    """MatMulNBits: codes [N, blocks, bytes], scales and packed zero points per block."""
    a = _attributes(node)
    codes, scales, *zeros = (stored.value(name) for name in node.input[1:] if name)
    return _blocks(codes, scales, zeros, a["bits"], a["block_size"])[:, : a["K"]]


def _gather_blocks(stored: Stored, node: NodeProto) -> np.ndarray:
    """GatherBlockQuantized of uint8: as MatMulNBits, codes [N, bytes]."""
    a = _attributes(node)
    codes, scales, *zeros = (stored.value(node.input[i]) for i in (0, *range(2, len(node.input))))
    return _blocks(codes, scales, zeros, a["bits"], a["block_size"])[:, : stored.hidden]


def _blocks(
    codes: np.ndarray, scales: np.ndarray, zeros: list[np.ndarray], bits: int, block: int
) -> np.ndarray:
    """(code − zero point) × scale in blocks of a row: float32 [rows, blocks × block]."""
    count = scales.shape[1]

    def read(rows: slice) -> np.ndarray:
        scale = scales[rows, :, None].astype(np.float32)
        values = _unpacked(codes[rows].reshape(len(scale), -1), bits)
        zero: np.ndarray | np.float32 = np.float32(2 ** (bits - 1))
        if zeros:
            packed = zeros[0].reshape(len(scales), -1)[rows]
            zero = _unpacked(packed, bits)[:, :count, None]
        result: np.ndarray = (values.reshape(len(scale), count, block) - zero) * scale
        return result.reshape(len(scale), -1)

    return by_rows(len(scales), read)


def _unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [rows, n] → codes as float32 [rows, n × 8 ÷ bits], the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (data[..., None] >> shifts) & np.uint8(2**bits - 1)
    return np.asarray(parts.reshape(len(data), -1), np.float32)


def _bnb4(stored: Stored, node: NodeProto) -> np.ndarray:
    """MatMulBnb4: NF4 codes of all rows in sequence, the first of two in the high half."""
    a = _attributes(node)
    if a["quant_type"] != 1:
        raise InputError(f"{stored.path}: {node.name} is not NF4, which is all that is known here")
    packed, peaks = (stored.value(name).reshape(-1) for name in node.input[1:3])
    size = a["block_size"] // 2  # bytes of a block, which has a peak

    def read(blocks: slice) -> np.ndarray:
        data = packed[blocks.start * size : blocks.stop * size]
        levels = NF4_LEVELS[np.stack([data >> 4, data & 15], axis=-1).reshape(-1)]
        scales = np.repeat(peaks[blocks].astype(np.float32), a["block_size"])
        values = np.zeros(len(scales), np.float32)
        values[: len(levels)] = levels * scales[: len(levels)]
        return values.reshape(-1, a["block_size"])

    return by_rows(len(peaks), read).reshape(-1)[: a["N"] * a["K"]].reshape(a["N"], a["K"])


def _integer(stored: Stored, node: NodeProto) -> np.ndarray:
    """MatMulInteger: codes [in, out]; the scales of the outputs follow after the multiplication."""
    codes = stored.value(node.input[1])
    zero = stored.value(node.input[3]) if len(node.input) > 3 else np.zeros(1)
    stem = _parameter(node.input[1])
    (scales,) = (
        stored.value(name)
        for user in stored.weights[stem]
        if user.op_type == "Mul"
        for name in user.input
        if name.startswith(stem)
    )
    outputs = codes.shape[1]
    zeros, factors = (np.broadcast_to(part.reshape(-1), outputs) for part in (zero, scales))

    def read(rows: slice) -> np.ndarray:
        steps = codes[:, rows].astype(np.float32) - zeros[rows].astype(np.float32)
        return np.asarray((steps * factors[rows]).T)

    return by_rows(outputs, read)


def _dequantised(stored: Stored, node: NodeProto) -> np.ndarray:
    """DequantizeLinear in blocks of [in, out]: scales and zero points [blocks, out]."""
    a = _attributes(node)
    if a.get("axis", 1) != 0 or not a.get("block_size"):
        raise InputError(f"{stored.path}: {node.name} has no blocks along axis 0")
    codes, scales, *zeros = (stored.value(name) for name in node.input)

    def spread(blocks: np.ndarray, rows: slice) -> np.ndarray:
        wide = np.repeat(blocks[:, rows].astype(np.float32), a["block_size"], axis=0)
        return wide[: len(codes)]

    def read(rows: slice) -> np.ndarray:
        values = codes[:, rows].astype(np.float32)
        if zeros:
            values -= spread(zeros[0], rows)
        return np.asarray((values * spread(scales, rows)).T)

    return by_rows(codes.shape[1], read)


def _gathered(stored: Stored, node: NodeProto) -> np.ndarray:
    """Gather of a float table as it is; of bytes: blocks that later nodes unpack.

    All lookups of the weight say what they look up: codes [N, blocks, bytes], scales [N, blocks],
    packed zero points. A row has as many codes as the embedding is wide, so bits follow.
    """
    table = stored.value(node.input[0])
    if table.dtype != np.uint8:
        return table
    stem = _parameter(node.input[0])
    names = [user.input[0] for user in stored.weights[stem]]
    arrays = [stored.value(name) for name in names]
    (codes,) = (array for array in arrays if array.ndim == 3)
    (scales,) = (array for array in arrays if array.dtype != np.uint8)
    zeros = [array for array in arrays if array.ndim == 2 and array.dtype == np.uint8]
    bits = 8 if codes[0].size >= stored.hidden else 4
    return _blocks(codes, scales, zeros, bits, codes.shape[2] * 8 // bits)[:, : stored.hidden]


def _right_operand(stored: Stored, node: NodeProto) -> np.ndarray:
    """A float matrix as a multiplication's right operand, or as the left one's input."""
    value = stored.value(next(name for name in node.input if name in stored.initializers))
    return value if _attributes(node).get("transB", 0) else value.T


def _as_is(stored: Stored, node: NodeProto) -> np.ndarray:
    return stored.value(next(name for name in node.input if name in stored.initializers))


def _parameter(name: str) -> str:
    match = PARAMETER.match(name)
    if match is None:
        raise KeyError(name)
    return match[0]


def _attributes(node: NodeProto) -> Mapping[str, Any]:
    return {attribute.name: attribute.i for attribute in node.attribute}


# Operator that uses a weight → how to read it; where several use one, the first of these.
READERS: dict[str, Callable[[Stored, NodeProto], np.ndarray]] = {
    "MatMulNBits": _nbits,
    "MatMulBnb4": _bnb4,
    "MatMulInteger": _integer,
    "GatherBlockQuantized": _gather_blocks,
    "DequantizeLinear": _dequantised,
    "Gemm": _right_operand,
    "FusedMatMul": _right_operand,
    "MatMul": _right_operand,
    "Gather": _gathered,
    "Add": _as_is,
    "RMSNormalization": _as_is,
    "SimplifiedLayerNormalization": _as_is,
    "SkipSimplifiedLayerNormalization": _as_is,
    "Transpose": _as_is,
}
# What else may use a tensor of a weight that one of these reads.
BESIDE = {"Cast", "Mul"}
