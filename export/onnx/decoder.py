"""The graph of a decoder, whichever operators it is made of, from its structure as data.

What `DecoderConfig.structure` says is all that distinguishes families here: where norms are, which
activation, which multipliers, which layers rotate.

Invariant: rows of a batch may be padded on the left. Every row counts its padding as positions,
which rotary attention, being relative, does not see; attention hides the padded keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import BIASES, DecoderConfig, Parameter, Role
from edgeproof.families.structure import Activation, differences
from export.onnx.decoder_graph import (
    BATCH,
    BEFORE_OUT_NORM,
    PAST,
    SEQUENCE,
    TOTAL,
    DecoderGraph,
    Fusible,
    Operators,
)
from export.onnx.embedding import MakeTable
from export.onnx.fusion import QUERY_KEY_VALUE, fuses_query_key_value
from export.onnx.graph import Dim, Graph
from export.onnx.linear import EmitLinear
from export.onnx.weights import plain
from export.targets import Target, check_bound

INT64 = np.dtype(np.int64)
FLOAT32 = np.dtype(np.float32)

# Called once the graph's inputs are declared; emits what all layers share.
MakeOperators = Callable[[DecoderGraph], Operators]


@dataclass(frozen=True)
class GraphParts:
    """What a variant's graph is built of: the activations' `dtype`, and what emits the parts."""

    dtype: np.dtype[Any]
    linear: EmitLinear
    make_table: MakeTable
    make_operators: MakeOperators
    fusible: Fusible = lambda parameters: True


def build_decoder(
    config: DecoderConfig,
    parameters: tuple[Parameter, ...],
    parts: GraphParts,
    *,
    choose_logits: bool,
    residual_scale: float = 1.0,
) -> Graph:
    """The whole graph with its stored tensors.

    Inputs: input_ids and attention_mask int64 [batch, sequence] and [batch, total],
    past_key_values.N.key/value [batch, kv heads, past, head dim] of `parts.dtype`, and, with
    `choose_logits`, num_logits_to_keep, an int64 scalar: logits are computed for that many last
    positions, 0 means all. Outputs: logits float32 [batch, positions, vocab] and present.N.*.

    With `residual_scale`, a power of two, the whole residual stream is that much smaller: what
    enters it is scaled, and each norm's ε by its square. A norm divides by the stream's own size,
    so that everything after it stays the same.

    Raises:
        InputError: a head size that the operators refuse, something that graphs here do not
            compute, a layer that reads the scaled stream without a norm, or a parameter of the
            table that the graph does not use.
    """
    _check_structure(config, residual_scale)
    b = DecoderGraph(config, parameters, parts.dtype, parts.linear, residual_scale, parts.fusible)
    g, multipliers = b.graph, config.structure.multipliers
    positions: Dim = "num_logits" if choose_logits else SEQUENCE
    g.output("logits", FLOAT32, [BATCH, positions, config.vocab])
    _declare_inputs(b)
    operators = parts.make_operators(b)
    embedding, path = parts.make_table(b.target(Role.EMBEDDING), config.tied), "/model/embed_tokens"
    x = embedding.rows(g, "input_ids", path)
    x = b.multiplied(x, multipliers.embedding, "embedding_multiplier", f"{path}/multiplied")
    # Not folded into the table, which may be the head's too.
    stream = _Stream(b, operators, b.multiplied(x, residual_scale, "residual_scale", path))
    for layer in range(config.layers):
        x = stream.read(Role.INPUT_NORM, layer, b.parent(Role.QUERY, layer))
        stream.add(_attention(b, operators, x, layer), Role.ATTENTION_OUT_NORM, layer)
        x = stream.read(Role.MLP_NORM, layer, b.parent(Role.UP, layer))
        stream.add(_mlp(b, x, layer), Role.MLP_OUT_NORM, layer)
    x = stream.read(Role.FINAL_NORM, None, "/model")
    if choose_logits:
        x = _last_positions(b, x)
    x = b.multiplied(x, multipliers.logits, "logits_multiplier", "/model/multiplied")
    head = embedding if config.tied else parts.make_table(b.target(Role.HEAD), False)
    head.project(g, x, "/lm_head", "logits")
    check_bound(b.targets, parameters)
    return g


def _check_structure(config: DecoderConfig, residual_scale: float) -> None:
    structure = config.structure
    for difference in differences(structure, replace(structure, softcap=None)):
        raise InputError(f"ONNX: {difference} is not supported yet")
    reading = (Role.INPUT_NORM, Role.MLP_NORM, Role.FINAL_NORM)
    if residual_scale != 1 and not all(role in structure.norms for role in reading):
        raise InputError(
            "--residual-scale: this model's layers read the residual stream without a norm, which"
            " would divide the scale out again"
        )


class _Stream:
    """The residual stream: its value so far, and what is still to be added to it."""

    def __init__(self, b: DecoderGraph, operators: Operators, value: str) -> None:
        self._b, self._operators = b, operators
        self._value, self._pending = value, ""

    def read(self, role: Role, layer: int | None, reader: str) -> str:
        """What the module `reader` takes of it: after the norm of that role, where there is one."""
        b = self._b
        if role not in b.config.structure.norms:
            if self._pending:
                self._value = b.graph.node(
                    "Add", [self._value, self._pending], f"{reader}/residual"
                )
                self._pending = ""
            return self._value
        weight, path = b.target(role, layer), b.path(role, layer)
        if not self._pending:
            shape: list[Dim] = [BATCH, SEQUENCE, b.config.hidden]
            return self._operators.norm(self._value, weight, path, shape, b.epsilon)
        x, self._value = self._operators.add_norm(
            self._value, self._pending, weight, path, b.epsilon
        )
        self._pending = ""
        return x

    def add(self, x: str, role: Role, layer: int) -> None:
        """Add what attention or MLP gives, after the norm of that role, where there is one."""
        b = self._b
        path = b.path(BEFORE_OUT_NORM[role], layer)
        if role in b.config.structure.norms:
            path = b.path(role, layer)
            shape: list[Dim] = [BATCH, SEQUENCE, b.config.hidden]
            x = self._operators.norm(x, b.target(role, layer), path, shape, b.config.norm_eps)
        factor = b.config.structure.multipliers.residual
        self._pending = b.multiplied(x, factor, "residual_multiplier", f"{path}/multiplied")


def _declare_inputs(b: DecoderGraph) -> None:
    g, c = b.graph, b.config
    g.input("input_ids", INT64, [BATCH, SEQUENCE])
    g.input("attention_mask", INT64, [BATCH, TOTAL])
    for layer in range(c.layers):
        for kind in ("key", "value"):
            g.input(
                f"past_key_values.{layer}.{kind}", b.dtype, [BATCH, c.kv_heads, PAST, c.head_dim]
            )


def _attention(b: DecoderGraph, operators: Operators, x: str, layer: int) -> str:
    for kind in ("key", "value"):
        shape: list[Dim] = [BATCH, b.config.kv_heads, TOTAL, b.config.head_dim]
        b.graph.output(f"present.{layer}.{kind}", b.dtype, shape)
    query_key_value = _query_key_value(b, operators, x, layer)
    y = operators.attention(query_key_value, layer, b.parent(Role.QUERY, layer))
    return _linear(b, y, Role.OUTPUT, layer)


def _query_key_value(b: DecoderGraph, operators: Operators, x: str, layer: int) -> list[str]:
    """See `Operators.attention`: packed in one, or, with norms or a storage of their own, apart."""
    roles = QUERY_KEY_VALUE
    if not fuses_query_key_value(b.config):
        query, key = (_linear(b, x, role, layer) for role in (Role.QUERY, Role.KEY))
        return [
            _query_norm(b, operators, query, Role.QUERY_NORM, layer),
            _query_norm(b, operators, key, Role.KEY_NORM, layer),
            _linear(b, x, Role.VALUE, layer),
        ]
    if not b.fuses(roles, layer):
        return [_linear(b, x, role, layer) for role in roles]
    path = f"{b.parent(Role.QUERY, layer)}/qkv_proj"
    name = path[1:].replace("/", ".")
    qkv = b.linear(b.graph, x, b.fused(f"{name}.weight", roles, layer), path)
    if Role.QUERY in b.config.biased:
        biases = tuple(BIASES[role] for role in roles)
        qkv = _add(b, qkv, b.fused(f"{name}.bias", biases, layer), path)
    return [qkv]


def _query_norm(b: DecoderGraph, operators: Operators, x: str, role: Role, layer: int) -> str:
    """RMSNorm of queries or keys [batch, sequence, heads × size]: each head's, or all together."""
    g, c = b.graph, b.config
    width = c.heads if role is Role.QUERY_NORM else c.kv_heads
    weight, path = b.target(role, layer), b.path(role, layer)
    if not c.structure.norms[role].per_head:
        shape: list[Dim] = [BATCH, SEQUENCE, width * c.head_dim]
        return operators.norm(x, weight, path, shape, c.norm_eps)
    rows = g.constant("head_rows", np.array([0, -1, c.head_dim], np.int64))
    flat = g.constant(f"{width}_heads", np.array([0, -1, width * c.head_dim], np.int64))
    x = g.node("Reshape", [x, rows], f"{path}/heads")  # [batch, sequence × heads, size]
    y = operators.norm(x, weight, path, [BATCH, f"{path}/rows", c.head_dim], c.norm_eps)
    return g.node("Reshape", [y, flat], path)


def _linear(b: DecoderGraph, x: str, role: Role, layer: int) -> str:
    """A linear layer with its bias, where it has one."""
    path = b.path(role, layer)
    y = b.linear(b.graph, x, b.target(role, layer), path)
    return _add(b, y, b.target(BIASES[role], layer), path) if role in b.config.biased else y


def _add(b: DecoderGraph, x: str, bias: Target, path: str) -> str:
    return b.graph.node("Add", [x, b.graph.store(plain(bias, b.dtype))], path)


def _mlp(b: DecoderGraph, x: str, layer: int) -> str:
    g, path = b.graph, b.parent(Role.UP, layer)
    activation = ACTIVATIONS[b.config.structure.activation]
    if b.config.structure.gated:
        gate, up = (_linear(b, x, role, layer) for role in (Role.GATE, Role.UP))
        y = g.node("Mul", [activation(g, gate, f"{path}/act_fn"), up], f"{path}/gated")
    else:
        y = activation(g, _linear(b, x, Role.UP, layer), f"{path}/act_fn")
    return _linear(b, y, Role.DOWN, layer)


def _silu(g: Graph, x: str, path: str) -> str:
    return g.node("Mul", [x, g.node("Sigmoid", [x], path)], path)


def _gelu_tanh(g: Graph, x: str, path: str) -> str:
    return g.node("Gelu", [x], path, approximate="tanh")


ACTIVATIONS: Mapping[Activation, Callable[[Graph, str, str], str]] = {
    Activation.SILU: _silu,
    Activation.GELU_TANH: _gelu_tanh,
}


def _last_positions(b: DecoderGraph, x: str) -> str:
    """The last num_logits_to_keep positions; -0 = 0 makes the slice start at the first for 0."""
    g, path = b.graph, "/model/last_positions"
    g.input("num_logits_to_keep", INT64, [])
    one = g.constant("one", np.array([1], np.int64))
    end = g.constant("end", np.array([2**31 - 1], np.int64))
    start = g.node("Neg", ["num_logits_to_keep"], path)
    start = g.node("Reshape", [start, one], path)
    return g.node("Slice", [x, start, end, one], path)
