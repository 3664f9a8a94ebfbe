"""Norms and attention as ONNX Runtime's contrib operators (com.microsoft): the fastest graph there.

GroupQueryAttention with rotary inside, SkipSimplifiedLayerNormalization:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeproof.errors import InputError
from export.onnx.decoder_graph import BATCH, HIDDEN_KEY_BIAS, SEQUENCE, DecoderGraph
from export.onnx.graph import CONTRIB, Dim, element_type
from export.onnx.weights import plain
from export.targets import Target

INT32 = np.dtype(np.int32)
# GroupQueryAttention with rotary inside refuses other head sizes, and other numbers of rotated
# channels.
HEAD_DIM_MULTIPLE = 16


class FusedOperators:
    """See `export.onnx.decoder_graph.Operators`.

    Raises:
        InputError: a head size that the attention operator refuses.
    """

    def __init__(self, b: DecoderGraph) -> None:
        if b.config.head_dim % HEAD_DIM_MULTIPLE:
            raise InputError(
                f"head_dim = {b.config.head_dim}: ONNX Runtime's GroupQueryAttention needs a"
                f" multiple of {HEAD_DIM_MULTIPLE}; export with --graph portable, or to GGUF"
            )
        for rope in filter(None, b.config.structure.ropes):
            if (rotated := rope.rotated(b.config.head_dim)) % HEAD_DIM_MULTIPLE:
                raise InputError(
                    f"{rotated} rotated channels: ONNX Runtime's GroupQueryAttention needs a"
                    f" multiple of {HEAD_DIM_MULTIPLE}; export with --graph portable, or to GGUF"
                )
        self.b = b
        g, path = b.graph, "/model/attention"
        batch = g.node("Shape", ["input_ids"], f"{path}/batch", start=0, end=1)
        sequence = g.node("Shape", ["input_ids"], f"{path}/sequence", start=1, end=2)
        total = g.node("Shape", ["attention_mask"], f"{path}/total", start=1, end=2)
        total32 = g.node("Cast", [total], f"{path}/total", to=element_type(INT32))
        one = g.constant("one", np.array([1], np.int64))
        one32 = g.constant("one_int32", np.array([1], np.int32))
        last = g.node("Sub", [total32, one32], f"{path}/last_key")
        mask = g.node("Cast", ["attention_mask"], f"{path}/mask", to=element_type(b.dtype))
        visible = g.constant("visible", np.ones((), b.dtype))
        inverse = g.node("Sub", [visible, mask], f"{path}/hidden")
        weight = g.constant("hidden_key_bias", np.array(HIDDEN_KEY_BIAS, b.dtype))
        row = g.node("Mul", [inverse, weight], f"{path}/bias_row")
        axes = g.constant("bias_axes", np.array([1, 2], np.int64))
        row = g.node("Unsqueeze", [row, axes], f"{path}/bias_row")  # [batch, 1, 1, total]
        # The operator refuses a bias of one row for all queries: its third size must be the
        # sequence's.
        full = g.node("Concat", [batch, one, sequence, one], f"{path}/bias_shape", axis=0)
        self.lengths = [
            g.node("Expand", [last, batch], f"{path}/last_key"),
            g.node("Squeeze", [total32], f"{path}/total"),
        ]
        self.bias = g.node("Expand", [row, full], f"{path}/bias")
        self.tables = b.rotary_tables()

    def norm(self, x: str, weight: Target, path: str, shape: Sequence[Dim], epsilon: float) -> str:
        """The skip of x is x itself, with 4ε.

        The same bits (both are exact powers of two), and no operator that ONNX's checker rejects.
        """
        outputs = [f"{path}/output_0"]
        self._skip_norm(x, x, weight, path, outputs, 4 * epsilon)
        return self.b.graph.typed(outputs[0], self.b.dtype, shape)

    def add_norm(
        self, residual: str, skip: str, weight: Target, path: str, epsilon: float
    ) -> tuple[str, str]:
        """One node for both."""
        normed, total = f"{path}/output_0", f"{path}/residual"
        self._skip_norm(residual, skip, weight, path, [normed, "", "", total], epsilon)
        for name in (normed, total):
            self.b.graph.typed(name, self.b.dtype, [BATCH, SEQUENCE, self.b.config.hidden])
        return normed, total

    def _skip_norm(
        self,
        residual: str,
        skip: str,
        weight: Target,
        path: str,
        outputs: Sequence[str],
        epsilon: float,
    ) -> None:
        """Accumulated in float32 by the runtime."""
        g = self.b.graph
        inputs = [residual, skip, g.store(plain(weight, self.b.dtype))]
        op = "SkipSimplifiedLayerNormalization"
        g.emit(op, inputs, path, outputs, domain=CONTRIB, epsilon=epsilon)

    def attention(self, query_key_value: Sequence[str], layer: int, path: str) -> str:
        """One node for rotary embedding, cache and attention; takes packed values as they are."""
        g, c = self.b.graph, self.b.config
        kinds = ("key", "value")
        packed = [*query_key_value, "", ""][:3]
        rope, window = c.structure.layers[layer].rope, self.b.window(layer)
        limits = {} if window is None else {"local_window_size": window}
        tables = self.tables[rope] if rope else ["", ""]
        past = [f"past_key_values.{layer}.{kind}" for kind in kinds]
        y = g.emit(
            "GroupQueryAttention",
            [*packed, *past, *self.lengths, *tables, "", self.bias],
            path,
            [f"{path}/output_0", *(f"present.{layer}.{kind}" for kind in kinds)],
            domain=CONTRIB,
            num_heads=c.heads,
            kv_num_heads=c.kv_heads,
            scale=c.structure.multipliers.attention,
            do_rotary=int(rope is not None),
            **limits,
        )
        return g.typed(y, self.b.dtype, [BATCH, SEQUENCE, c.heads * c.head_dim])
