"""Norms and attention as standard operators alone, for runtimes without ONNX Runtime's own ones.

Operators of opset 23 (https://onnx.ai/onnx/operators/): RMSNormalization, RotaryEmbedding,
Attention with a KV cache and fewer key/value heads than query heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.onnx.decoder_graph import HIDDEN_KEY_BIAS, DecoderGraph
from export.onnx.graph import Dim, element_type
from export.onnx.weights import plain
from export.rounding.cast import FLOAT32
from export.targets import Target

# The first version of ONNX with all three operators.
OPSET = 23
BOOL = np.dtype(np.bool_)


class PortableOperators:
    """See `export.onnx.decoder_graph.Operators`."""

    def __init__(self, b: DecoderGraph) -> None:
        self.b = b
        b.graph.opset = OPSET
        g, path = b.graph, "/model/attention"
        batch = g.node("Shape", ["input_ids"], f"{path}/batch", start=0, end=1)
        sequence = g.node("Shape", ["input_ids"], f"{path}/sequence", start=1, end=2)
        total = g.node("Shape", ["attention_mask"], f"{path}/total", start=1, end=2)
        bounds = [
            g.constant("first_key", np.array(0, np.int64)),
            g.node("Squeeze", [total], f"{path}/total"),
            g.constant("key_step", np.array(1, np.int64)),
        ]
        keys = g.node("Range", bounds, f"{path}/keys")  # [total]
        past = g.node("Sub", [total, sequence], f"{path}/past")
        queries = g.node("Slice", [keys, past, total], f"{path}/queries")  # [sequence]
        shape = g.node("Concat", [batch, sequence], f"{path}/positions", axis=0)
        self.positions = g.node("Expand", [queries, shape], f"{path}/positions")
        windows = dict.fromkeys(b.window(layer) for layer in range(b.config.layers))
        self.biases = {window: self._bias(keys, queries, path, window) for window in windows}
        self.tables = b.rotary_tables()

    def _bias(self, keys: str, queries: str, path: str, window: int | None) -> str:
        """What is added to scores [batch, 1, sequence, total]: hides padding and what comes later.

        With a window also what lies before it. Not Attention's own causal mask, since runtimes
        differ in where it begins beside a past. Not a mask of booleans, since a row of padding,
        which sees nothing, could become NaN.
        """
        g, dtype = self.b.graph, self.b.dtype
        path = path if window is None else f"{path}/window_{window}"
        last = g.constant("last_axis", np.array([-1], np.int64))
        column = g.node("Unsqueeze", [queries, last], f"{path}/queries")
        seen = g.node("LessOrEqual", [keys, column], f"{path}/causal")  # [sequence, total]
        if window is not None:
            size = g.constant(f"window_{window}", np.array(window, np.int64))
            before = g.node("Sub", [column, size], f"{path}/before")
            near = g.node("Greater", [keys, before], f"{path}/near")
            seen = g.node("And", [seen, near], f"{path}/seen")
        mask = g.node("Cast", ["attention_mask"], f"{path}/mask", to=element_type(BOOL))
        axes = g.constant("bias_axes", np.array([1, 2], np.int64))
        mask = g.node("Unsqueeze", [mask, axes], f"{path}/mask")  # [batch, 1, 1, total]
        visible = g.node("And", [mask, seen], f"{path}/visible")
        added = [
            g.constant("visible_key_bias", np.zeros((), dtype)),
            g.constant("hidden_key_bias", np.array(HIDDEN_KEY_BIAS, dtype)),
        ]
        return g.node("Where", [visible, *added], f"{path}/bias")

    def norm(self, x: str, weight: Target, path: str, shape: Sequence[Dim], epsilon: float) -> str:
        """One node; its type can be inferred."""
        return self._norm(x, weight, path, epsilon)

    def _norm(self, x: str, weight: Target, path: str, epsilon: float) -> str:
        """Accumulated in float32, which `stash_type` asks for."""
        g = self.b.graph
        return g.node(
            "RMSNormalization",
            [x, g.store(plain(weight, self.b.dtype))],
            path,
            epsilon=epsilon,
            stash_type=element_type(FLOAT32),
        )

    def add_norm(
        self, residual: str, skip: str, weight: Target, path: str, epsilon: float
    ) -> tuple[str, str]:
        """Two nodes."""
        total = self.b.graph.node("Add", [residual, skip], f"{path}/residual")
        return self._norm(total, weight, path, epsilon), total

    def attention(self, query_key_value: Sequence[str], layer: int, path: str) -> str:
        """The cache holds keys that are rotated already."""
        g, c = self.b.graph, self.b.config
        kinds = ("key", "value")
        query, key, value = self._split(query_key_value, path)
        g.emit(
            "Attention",
            [
                self._rotated(query, layer, c.heads, f"{path}/query"),
                self._rotated(key, layer, c.kv_heads, f"{path}/key"),
                value,
                self.biases[self.b.window(layer)],
                *(f"past_key_values.{layer}.{kind}" for kind in kinds),
            ],
            path,
            [f"{path}/output_0", *(f"present.{layer}.{kind}" for kind in kinds)],
            q_num_heads=c.heads,
            kv_num_heads=c.kv_heads,
            scale=c.structure.multipliers.attention,
            softmax_precision=element_type(FLOAT32),
        )
        return f"{path}/output_0"

    def _split(self, query_key_value: Sequence[str], path: str) -> Sequence[str]:
        if len(query_key_value) > 1:
            return query_key_value
        g, c = self.b.graph, self.b.config
        outputs = [f"{path}/{kind}/output_0" for kind in ("query", "key", "value")]
        widths = np.array([c.heads, c.kv_heads, c.kv_heads], np.int64) * c.head_dim
        sizes = g.constant("qkv_sizes", widths)
        g.emit("Split", [*query_key_value, sizes], path, outputs, axis=-1)
        return outputs

    def _rotated(self, x: str, layer: int, heads: int, path: str) -> str:
        """Queries or keys rotated, in a layer that rotates."""
        rope = self.b.config.structure.layers[layer].rope
        if rope is None:
            return x
        inputs = [x, *self.tables[rope], self.positions]
        rotated = rope.rotated(self.b.config.head_dim)
        some = {} if rotated == self.b.config.head_dim else {"rotary_embedding_dim": rotated}
        return self.b.graph.node("RotaryEmbedding", inputs, path, num_heads=heads, **some)
