"""The graph of a Llama-family decoder, fused for ONNX Runtime.

Contrib operators (com.microsoft: GroupQueryAttention with rotary inside,
SkipSimplifiedLayerNormalization):
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md

Invariant: rows of a batch may be padded on the left. Every row counts its padding as positions,
which rotary attention, being relative, does not see; the attention bias hides the padded keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from export.architecture import (
    BIASES,
    DecoderConfig,
    Parameter,
    Role,
    Target,
    check_bound,
    stack_rows,
)
from export.architecture.rope import scaled_frequencies
from export.errors import InputError
from export.onnx.embedding import MakeTable
from export.onnx.graph import CONTRIB, Dim, Graph, element_type
from export.onnx.linear import EmitLinear
from export.onnx.rotary import cosines, sines
from export.onnx.weights import plain, table

# Their outputs are added to the residual stream.
INTO_RESIDUAL = (Role.OUTPUT, Role.DOWN)
INT64 = np.dtype(np.int64)
INT32 = np.dtype(np.int32)
FLOAT32 = np.dtype(np.float32)
BATCH, SEQUENCE = "batch_size", "sequence_length"
PAST, TOTAL = "past_sequence_length", "total_sequence_length"
# exp(-10000) is 0 in every float type, yet sums with scores stay finite in float16: with -inf, a
# row of padding would become NaN and poison the real rows through the KV cache.
HIDDEN_KEY_BIAS = -10_000.0
# GroupQueryAttention with rotary inside refuses other head sizes.
HEAD_DIM_MULTIPLE = 16


@dataclass(frozen=True)
class AttentionInputs:
    """Names of the values that every layer's attention shares."""

    last_key: str
    total: str
    bias: str
    cosine: str
    sine: str


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


def build_decoder(
    config: DecoderConfig,
    parameters: tuple[Parameter, ...],
    dtype: np.dtype[Any],
    linear: EmitLinear,
    make_table: MakeTable,
    *,
    choose_logits: bool,
    residual_scale: float = 1.0,
) -> Graph:
    """The whole graph with its stored tensors.

    Inputs: input_ids and attention_mask int64 [batch, sequence] and [batch, total],
    past_key_values.N.key/value [batch, kv heads, past, head dim] of `dtype`, and, with
    `choose_logits`, num_logits_to_keep, an int64 scalar: logits are computed for that many last
    positions, 0 means all. Outputs: logits float32 [batch, positions, vocab] and present.N.*.

    With `residual_scale`, a power of two, the whole residual stream is that much smaller: what
    enters it is scaled, and each norm's ε by its square. A norm divides by the stream's own size,
    so that everything after it stays the same.

    Raises:
        InputError: a head size that the attention operator refuses, or a parameter of the table
            that the graph does not use.
    """
    if config.head_dim % HEAD_DIM_MULTIPLE:
        raise InputError(
            f"head_dim = {config.head_dim}: ONNX Runtime's GroupQueryAttention needs a multiple of"
            f" {HEAD_DIM_MULTIPLE}; export this model to GGUF instead"
        )
    b = DecoderGraph(config, parameters, dtype, linear, residual_scale)
    g = b.graph
    positions: Dim = "num_logits" if choose_logits else SEQUENCE
    g.output("logits", FLOAT32, [BATCH, positions, config.vocab])
    shared = _declare_inputs(b)
    embedding = make_table(b.target(Role.EMBEDDING), config.tied)
    residual = embedding.rows(g, "input_ids", "/model/embed_tokens")
    if residual_scale != 1:
        # Not folded into the table, which may be the head's too.
        scale = g.constant("residual_scale", np.array(residual_scale, dtype))
        residual = g.node("Mul", [residual, scale], "/model/embed_tokens")
    # The first norm has nothing to add. Adding the embedding to itself and taking 4ε gives the same
    # bits (both are exact powers of two) and needs no operator that ONNX's checker rejects.
    skip, epsilon = residual, 4 * config.norm_eps
    for layer in range(config.layers):
        path = f"/model/layers.{layer}"
        norm = b.target(Role.INPUT_NORM, layer)
        x, total = _norm(b, residual, skip, norm, f"{path}/input_layernorm", epsilon)
        residual = residual if layer == 0 else total
        skip = _attention(b, x, shared, layer)
        norm = b.target(Role.POST_NORM, layer)
        epsilon = config.norm_eps
        x, residual = _norm(b, residual, skip, norm, f"{path}/post_attention_layernorm", epsilon)
        skip = _mlp(b, x, layer)
    x, _ = _norm(b, residual, skip, b.target(Role.FINAL_NORM), "/model/norm", epsilon)
    if choose_logits:
        x = _last_positions(b, x)
    head = embedding if config.tied else make_table(b.target(Role.HEAD), False)
    head.project(g, x, "/lm_head", "logits")
    check_bound(b.targets, parameters)
    return g


def _declare_inputs(b: DecoderGraph) -> AttentionInputs:
    g, c = b.graph, b.config
    g.input("input_ids", INT64, [BATCH, SEQUENCE])
    g.input("attention_mask", INT64, [BATCH, TOTAL])
    for layer in range(c.layers):
        for kind in ("key", "value"):
            g.input(
                f"past_key_values.{layer}.{kind}", b.dtype, [BATCH, c.kv_heads, PAST, c.head_dim]
            )
    path = "/model/attention"
    batch = g.node("Shape", ["input_ids"], f"{path}/batch", start=0, end=1)
    sequence = g.node("Shape", ["input_ids"], f"{path}/sequence", start=1, end=2)
    total = g.node("Shape", ["attention_mask"], f"{path}/total", start=1, end=2)
    total32 = g.node("Cast", [total], f"{path}/total", to=element_type(INT32))
    one = g.constant("one", np.array([1], np.int64))
    one32 = g.constant("one_int32", np.array([1], np.int32))
    last = g.node("Sub", [total32, one32], f"{path}/last_key")
    mask = g.node("Cast", ["attention_mask"], f"{path}/mask", to=element_type(b.dtype))
    inverse = g.node("Sub", [g.constant("visible", np.ones((), b.dtype)), mask], f"{path}/hidden")
    weight = g.constant("hidden_key_bias", np.array(HIDDEN_KEY_BIAS, b.dtype))
    row = g.node("Mul", [inverse, weight], f"{path}/bias_row")
    axes = g.constant("bias_axes", np.array([1, 2], np.int64))
    row = g.node("Unsqueeze", [row, axes], f"{path}/bias_row")  # [batch, 1, 1, total]
    # The operator refuses a bias of one row for all queries: its third size must be the sequence's.
    full = g.node("Concat", [batch, one, sequence, one], f"{path}/bias_shape", axis=0)
    rotary = c.max_positions, scaled_frequencies(c.head_dim, c.rope_theta, c.rope_scaling)
    rotary_shape = (c.max_positions, c.head_dim // 2)
    return AttentionInputs(
        last_key=g.node("Expand", [last, batch], f"{path}/last_key"),
        total=g.node("Squeeze", [total32], f"{path}/total"),
        bias=g.node("Expand", [row, full], f"{path}/bias"),
        cosine=g.store(table("rotary.cosine", rotary_shape, b.dtype, partial(cosines, *rotary))),
        sine=g.store(table("rotary.sine", rotary_shape, b.dtype, partial(sines, *rotary))),
    )


def _norm(
    b: DecoderGraph, residual: str, skip: str, weight: Target, path: str, epsilon: float
) -> tuple[str, str]:
    """RMSNorm of residual + skip, accumulated in float32 by the runtime; and that sum."""
    outputs = [f"{path}/output_0", f"{path}/residual"]
    shape: list[Dim] = [BATCH, SEQUENCE, b.config.hidden]
    b.graph.emit(
        "SkipSimplifiedLayerNormalization",
        [residual, skip, b.graph.store(plain(weight, b.dtype))],
        path,
        [outputs[0], "", "", outputs[1]],
        domain=CONTRIB,
        epsilon=epsilon * b.residual_scale**2,
    )
    for name in outputs:
        b.graph.typed(name, b.dtype, shape)
    return outputs[0], outputs[1]


def _attention(b: DecoderGraph, x: str, shared: AttentionInputs, layer: int) -> str:
    g, c = b.graph, b.config
    path = f"/model/layers.{layer}/self_attn"
    present = [
        g.output(f"present.{layer}.{kind}", b.dtype, [BATCH, c.kv_heads, TOTAL, c.head_dim])
        for kind in ("key", "value")
    ]
    past = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
    tables = [shared.cosine, shared.sine]
    y = g.emit(
        "GroupQueryAttention",
        [
            *_query_key_value(b, x, layer, path),
            *past,
            shared.last_key,
            shared.total,
            *tables,
            "",
            shared.bias,
        ],
        path,
        [f"{path}/output_0", *present],
        domain=CONTRIB,
        num_heads=c.heads,
        kv_num_heads=c.kv_heads,
        scale=c.head_dim**-0.5,
        do_rotary=1,
    )
    g.typed(y, b.dtype, [BATCH, SEQUENCE, c.heads * c.head_dim])
    return _linear(b, y, Role.OUTPUT, layer, f"{path}/o_proj")


def _query_key_value(b: DecoderGraph, x: str, layer: int, path: str) -> list[str]:
    """The first three inputs of GroupQueryAttention: packed in one, or each for itself."""
    if b.has(Role.QUERY_NORM, layer):
        query = _linear(b, x, Role.QUERY, layer, f"{path}/q_proj")
        key = _linear(b, x, Role.KEY, layer, f"{path}/k_proj")
        return [
            _head_norm(b, query, b.target(Role.QUERY_NORM, layer), f"{path}/q_norm"),
            _head_norm(b, key, b.target(Role.KEY_NORM, layer), f"{path}/k_norm"),
            _linear(b, x, Role.VALUE, layer, f"{path}/v_proj"),
        ]
    roles = (Role.QUERY, Role.KEY, Role.VALUE)
    name = f"model.layers.{layer}.self_attn.qkv_proj"
    qkv = b.linear(b.graph, x, b.fused(f"{name}.weight", roles, layer), f"{path}/qkv_proj")
    if b.has(Role.QUERY_BIAS, layer):
        biases = tuple(BIASES[role] for role in roles)
        qkv = _add(b, qkv, b.fused(f"{name}.bias", biases, layer), f"{path}/qkv_proj")
    return [qkv, "", ""]


def _head_norm(b: DecoderGraph, x: str, weight: Target, path: str) -> str:
    """RMSNorm of each head by itself: x [.., heads × size], weight [size]."""
    g, size = b.graph, b.config.head_dim
    width = b.config.heads if weight.role is Role.QUERY_NORM else b.config.kv_heads
    rows = g.constant("head_rows", np.array([0, -1, size], np.int64))
    flat = g.constant(f"{width}_heads", np.array([0, -1, width * size], np.int64))
    x = g.node("Reshape", [x, rows], f"{path}/heads")  # [batch, sequence × heads, size]
    # Nothing to add: as for the embedding, x + x with 4ε has the same bits.
    y = g.emit(
        "SkipSimplifiedLayerNormalization",
        [x, x, g.store(plain(weight, b.dtype))],
        path,
        [f"{path}/output_0"],
        domain=CONTRIB,
        epsilon=4 * b.config.norm_eps,
    )
    g.typed(y, b.dtype, [BATCH, f"{path}/rows", size])
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
