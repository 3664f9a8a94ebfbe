"""The graph of a Llama-family decoder, whichever operators it is made of.

`Operators` is the seam: norms and attention are contrib operators of ONNX Runtime in
`export.onnx.fused`, standard ones in `export.onnx.portable`; all else is here, and standard.

Invariant: rows of a batch may be padded on the left. Every row counts its padding as positions,
which rotary attention, being relative, does not see; attention hides the padded keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from edgeproof.families import BIASES, DecoderConfig, Parameter, Role
from edgeproof.families.rope import scaled_frequencies
from export.onnx.embedding import MakeTable
from export.onnx.graph import Dim, Graph
from export.onnx.linear import EmitLinear
from export.onnx.rotary import cosines, sines
from export.onnx.weights import plain, table
from export.targets import Target, check_bound, stack_rows

# Their outputs are added to the residual stream.
INTO_RESIDUAL = (Role.OUTPUT, Role.DOWN)
INT64 = np.dtype(np.int64)
FLOAT32 = np.dtype(np.float32)
BATCH, SEQUENCE = "batch_size", "sequence_length"
PAST, TOTAL = "past_sequence_length", "total_sequence_length"
# exp(-10000) is 0 in every float type, yet sums with scores stay finite in float16: with -inf, a
# row of padding would become NaN and poison the real rows through the KV cache.
HIDDEN_KEY_BIAS = -10_000.0


class Operators(Protocol):
    """How a graph computes norms and attention. Values are of the graph's `dtype`."""

    def norm(self, x: str, weight: Target, path: str, shape: Sequence[Dim], epsilon: float) -> str:
        """RMSNorm of the last axis of x, whose shape is `shape`."""

    def add_norm(
        self, residual: str, skip: str, weight: Target, path: str, epsilon: float
    ) -> tuple[str, str]:
        """RMSNorm of residual + skip [batch, sequence, hidden]; and that sum."""

    def attention(self, query_key_value: Sequence[str], layer: int, path: str) -> str:
        """Rotary attention of a layer over its past and the new: [batch, sequence, heads × size].

        `query_key_value` are three values [batch, sequence, heads × size], or one with all three
        side by side. Produces the outputs present.N.key and present.N.value.
        """


class DecoderGraph:
    """Builds the graph. Use `build_decoder`."""

    def __init__(
        self,
        config: DecoderConfig,
        parameters: tuple[Parameter, ...],
        dtype: np.dtype[Any],
        linear: EmitLinear,
        residual_scale: float,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.linear = linear
        self.residual_scale = residual_scale
        self.graph = Graph()
        self.targets: list[Target] = []
        self._parameters = {(item.layer, item.role): item for item in parameters}

    @property
    def epsilon(self) -> float:
        """What norms of the residual stream add to the mean square."""
        return self.config.norm_eps * self.residual_scale**2

    def rotary_tables(self) -> list[str]:
        """Stored cosines and sines [positions, head dim / 2]."""
        c = self.config
        angles = c.max_positions, scaled_frequencies(c.head_dim, c.rope)
        shape = (c.max_positions, c.head_dim // 2)
        tables = {"rotary.cosine": cosines, "rotary.sine": sines}
        return [
            self.graph.store(table(name, shape, self.dtype, partial(blocks, *angles)))
            for name, blocks in tables.items()
        ]

    def has(self, role: Role, layer: int) -> bool:
        """Whether the checkpoint has this parameter."""
        return (layer, role) in self._parameters

    def target(self, role: Role, layer: int | None = None) -> Target:
        """One parameter as it is; remembers that it is used."""
        parameter = self._parameters[layer, role]
        return self._use(Target(parameter.name, (parameter,), parameter.shape))

    def fused(self, name: str, roles: tuple[Role, ...], layer: int) -> Target:
        """Linear weights of one layer that share their input, or biases, stacked along outputs."""
        sources = tuple(self._parameters[layer, role] for role in roles)
        shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])
        return self._use(Target(name, sources, shape, stack_rows))

    def into_residual(self, role: Role, layer: int) -> Target:
        """A weight or bias whose outputs are added to the residual stream, times its scale."""
        target, scale = self.target(role, layer), np.float32(self.residual_scale)
        if scale == 1:
            return target
        return replace(target, transform=lambda arrays: arrays[0].astype(np.float32) * scale)

    def _use(self, target: Target) -> Target:
        self.targets.append(target)
        return target


# Called once the graph's inputs are declared; emits what all layers share.
MakeOperators = Callable[[DecoderGraph], Operators]


@dataclass(frozen=True)
class GraphParts:
    """What a variant's graph is built of: the activations' `dtype`, and what emits the parts."""

    dtype: np.dtype[Any]
    linear: EmitLinear
    make_table: MakeTable
    make_operators: MakeOperators


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
        InputError: a head size that the operators refuse, or a parameter of the table that the
            graph does not use.
    """
    b = DecoderGraph(config, parameters, parts.dtype, parts.linear, residual_scale)
    g = b.graph
    positions: Dim = "num_logits" if choose_logits else SEQUENCE
    g.output("logits", FLOAT32, [BATCH, positions, config.vocab])
    _declare_inputs(b)
    operators = parts.make_operators(b)
    embedding = parts.make_table(b.target(Role.EMBEDDING), config.tied)
    residual = embedding.rows(g, "input_ids", "/model/embed_tokens")
    if residual_scale != 1:
        # Not folded into the table, which may be the head's too.
        scale = g.constant("residual_scale", np.array(residual_scale, parts.dtype))
        residual = g.node("Mul", [residual, scale], "/model/embed_tokens")
    skip = ""
    for layer in range(config.layers):
        path = f"/model/layers.{layer}"
        norm, norm_path = b.target(Role.INPUT_NORM, layer), f"{path}/input_layernorm"
        if layer == 0:  # nothing to add yet
            x = operators.norm(
                residual, norm, norm_path, [BATCH, SEQUENCE, config.hidden], b.epsilon
            )
        else:
            x, residual = operators.add_norm(residual, skip, norm, norm_path, b.epsilon)
        skip = _attention(b, operators, x, layer)
        norm, norm_path = b.target(Role.MLP_NORM, layer), f"{path}/post_attention_layernorm"
        x, residual = operators.add_norm(residual, skip, norm, norm_path, b.epsilon)
        skip = _mlp(b, x, layer)
    norm = b.target(Role.FINAL_NORM)
    x, _ = operators.add_norm(residual, skip, norm, "/model/norm", b.epsilon)
    if choose_logits:
        x = _last_positions(b, x)
    head = embedding if config.tied else parts.make_table(b.target(Role.HEAD), False)
    head.project(g, x, "/lm_head", "logits")
    check_bound(b.targets, parameters)
    return g


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
    path = f"/model/layers.{layer}/self_attn"
    for kind in ("key", "value"):
        shape: list[Dim] = [BATCH, b.config.kv_heads, TOTAL, b.config.head_dim]
        b.graph.output(f"present.{layer}.{kind}", b.dtype, shape)
    y = operators.attention(_query_key_value(b, operators, x, layer, path), layer, path)
    return _linear(b, y, Role.OUTPUT, layer, f"{path}/o_proj")


def _query_key_value(
    b: DecoderGraph, operators: Operators, x: str, layer: int, path: str
) -> list[str]:
    """See `Operators.attention`: packed in one, or, with norms of their own, each for itself."""
    if b.has(Role.QUERY_NORM, layer):
        query = _linear(b, x, Role.QUERY, layer, f"{path}/q_proj")
        key = _linear(b, x, Role.KEY, layer, f"{path}/k_proj")
        return [
            _head_norm(b, operators, query, b.target(Role.QUERY_NORM, layer), f"{path}/q_norm"),
            _head_norm(b, operators, key, b.target(Role.KEY_NORM, layer), f"{path}/k_norm"),
            _linear(b, x, Role.VALUE, layer, f"{path}/v_proj"),
        ]
    roles = (Role.QUERY, Role.KEY, Role.VALUE)
    name = f"model.layers.{layer}.self_attn.qkv_proj"
    qkv = b.linear(b.graph, x, b.fused(f"{name}.weight", roles, layer), f"{path}/qkv_proj")
    if b.has(Role.QUERY_BIAS, layer):
        biases = tuple(BIASES[role] for role in roles)
        qkv = _add(b, qkv, b.fused(f"{name}.bias", biases, layer), f"{path}/qkv_proj")
    return [qkv]


def _head_norm(b: DecoderGraph, operators: Operators, x: str, weight: Target, path: str) -> str:
    """RMSNorm of each head by itself: x [.., heads × size], weight [size]."""
    g, size = b.graph, b.config.head_dim
    width = b.config.heads if weight.role is Role.QUERY_NORM else b.config.kv_heads
    rows = g.constant("head_rows", np.array([0, -1, size], np.int64))
    flat = g.constant(f"{width}_heads", np.array([0, -1, width * size], np.int64))
    x = g.node("Reshape", [x, rows], f"{path}/heads")  # [batch, sequence × heads, size]
    shape: list[Dim] = [BATCH, f"{path}/rows", size]
    y = operators.norm(x, weight, path, shape, b.config.norm_eps)
    return g.node("Reshape", [y, flat], path)


def _linear(b: DecoderGraph, x: str, role: Role, layer: int, path: str) -> str:
    """A linear layer with its bias, where it has one."""
    bind = b.into_residual if role in INTO_RESIDUAL else b.target
    y = b.linear(b.graph, x, bind(role, layer), path)
    bias = BIASES[role]
    return _add(b, y, bind(bias, layer), path) if b.has(bias, layer) else y


def _add(b: DecoderGraph, x: str, bias: Target, path: str) -> str:
    return b.graph.node("Add", [x, b.graph.store(plain(bias, b.dtype))], path)


def _mlp(b: DecoderGraph, x: str, layer: int) -> str:
    g, path = b.graph, f"/model/layers.{layer}/mlp"
    gate = _linear(b, x, Role.GATE, layer, f"{path}/gate_proj")
    up = _linear(b, x, Role.UP, layer, f"{path}/up_proj")
    sigmoid = g.node("Sigmoid", [gate], f"{path}/act_fn")
    silu = g.node("Mul", [gate, sigmoid], f"{path}/act_fn")
    product = g.node("Mul", [silu, up], f"{path}/gated")
    return _linear(b, product, Role.DOWN, layer, f"{path}/down_proj")


def _last_positions(b: DecoderGraph, x: str) -> str:
    """The last num_logits_to_keep positions; -0 = 0 makes the slice start at the first for 0."""
    g, path = b.graph, "/model/last_positions"
    g.input("num_logits_to_keep", INT64, [])
    one = g.constant("one", np.array([1], np.int64))
    end = g.constant("end", np.array([2**31 - 1], np.int64))
    start = g.node("Neg", ["num_logits_to_keep"], path)
    start = g.node("Reshape", [start, one], path)
    return g.node("Slice", [x, start, end, one], path)
