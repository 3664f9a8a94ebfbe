"""The decoder as a Relax module: one layer, the embedding and the head.

All layers have the same shape, so one compiled layer serves all of them and the compile time does
not grow with the depth; the caller passes each layer's weights. Prefill and decode are the same
functions, for any number of new positions.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from tvm.ir import IRModule
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from runtimes.tvm import kernels
from runtimes.tvm.kernels import LANES, panels
from runtimes.tvm.model_config import DecoderShape


class Matrix(nn.Module):  # type: ignore[misc]
    """A weight [outs, ins], stored as panels in the model dtype."""

    def __init__(self, outs: int, ins: int, dtype: str) -> None:
        self.outs, self.ins, self.dtype = outs, ins, dtype
        self.stored_shape: tuple[int, ...] = (outs, ins)
        self.weight = nn.Parameter((panels(outs), ins, LANES), dtype)

    def apply(self, x: Tensor) -> Tensor:
        """Float32 [n, ins] · weightᵀ → float32 [n, outs]."""
        kernel = kernels.matmul(self.outs, self.ins, self.dtype)
        return _call(kernel, "matmul", [x, self.weight], (x.shape[0], self.outs))

    def take(self, ids: Tensor) -> Tensor:
        """Rows: float32 [n, ins]."""
        kernel = kernels.embed(self.outs, self.ins, self.dtype)
        return _call(kernel, "take_rows", [ids, self.weight], (ids.shape[0], self.ins))


class Norm(nn.Module):  # type: ignore[misc]
    """RMSNorm in float32: residual channels exceed what float16 can square."""

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.stored_shape: tuple[int, ...] = (shape.hidden,)
        self.weight = nn.Parameter(self.stored_shape, dtype)
        self.eps = shape.norm_eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [n, hidden] over the channels."""
        return op.rms_norm(x, op.astype(self.weight, "float32"), -1, self.eps)


class Attention(nn.Module):  # type: ignore[misc]
    """Grouped-query attention over the KV cache."""

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.shape = shape
        self.qkv_proj = Matrix(shape.qkv_rows, shape.hidden, dtype)
        self.o_proj = Matrix(shape.hidden, shape.query_rows, dtype)

    def apply(self, x: Tensor, start: Any, cache: list[Tensor]) -> Tensor:
        """`cache` is cosine, sine, keys, values; keys and values are written in place."""
        qkv = self.qkv_proj.apply(x)
        cosine, sine, keys, values = cache
        keys, values = op.tensor_ir_inplace_op(
            kernels.append_kv(self.shape),
            "append_kv",
            [qkv, cosine, sine, keys, values, start],
            [3, 4],
            [Tensor.placeholder(t.shape, "float32") for t in (keys, values)],
        )
        mixed = _call(
            kernels.attend(self.shape),
            "attend",
            [qkv, cosine, sine, keys, values, start],
            (x.shape[0], self.shape.query_rows),
        )
        return self.o_proj.apply(mixed)


class FeedForward(nn.Module):  # type: ignore[misc]
    """SwiGLU."""

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.gate_up_proj = Matrix(2 * shape.intermediate, shape.hidden, dtype)
        self.down_proj = Matrix(shape.hidden, shape.intermediate, dtype)

    def apply(self, x: Tensor) -> Tensor:
        """Hidden states [n, hidden] → [n, hidden]."""
        gate, up = op.split(self.gate_up_proj.apply(x), 2, axis=-1)
        return self.down_proj.apply(op.silu(gate) * up)


class Layer(nn.Module):  # type: ignore[misc]
    """One decoder layer with its residual connections."""

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.input_layernorm = Norm(shape, dtype)
        self.self_attn = Attention(shape, dtype)
        self.post_attention_layernorm = Norm(shape, dtype)
        self.mlp = FeedForward(shape, dtype)

    def apply(self, x: Tensor, start: Any, cache: list[Tensor]) -> Tensor:
        """Hidden states [n, hidden] → [n, hidden]."""
        x = x + self.self_attn.apply(self.input_layernorm(x), start, cache)
        return x + self.mlp.apply(self.post_attention_layernorm(x))


class Decoder(nn.Module):  # type: ignore[misc]
    """Everything that computes; `layer` stands for every layer, weights are in `dtype`."""

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.shape = shape
        self.embed_tokens = Matrix(shape.vocab, shape.hidden, dtype)
        self.layer = Layer(shape, dtype)
        self.norm = Norm(shape, dtype)
        if not shape.tied:
            self.lm_head = Matrix(shape.vocab, shape.hidden, dtype)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids int32 [n] → float32 [n, hidden]."""
        return self.embed_tokens.take(ids)

    def run_layer(
        self, x: Tensor, start: Any, cosine: Tensor, sine: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """One layer for positions start … start + n − 1: float32 [n, hidden] → [n, hidden]."""
        return self.layer.apply(x, start, [cosine, sine, keys, values])

    def head(self, x: Tensor) -> Tensor:
        """Hidden states [n, hidden] → logits [n, vocab]."""
        matrix = self.embed_tokens if self.shape.tied else self.lm_head
        return matrix.apply(self.norm(x))


def lower(shape: DecoderShape, dtype: str) -> IRModule:
    """The decoder as IR, not yet compiled."""
    module, _ = Decoder(shape, dtype).export_tvm(signatures(shape))
    return module


def parameters(shape: DecoderShape, dtype: str) -> dict[str, tuple[int, ...]]:
    """Logical shapes of the parameters, in the order in which the compiled functions take them.

    Names are paths in `Decoder`: `layer.mlp.down_proj.weight`, `norm.weight` ….
    """
    decoder = Decoder(shape, dtype)
    return {
        name: attrgetter(name.removesuffix(".weight"))(decoder).stored_shape
        for name, _ in decoder.named_parameters()
    }


def signatures(shape: DecoderShape) -> dict[str, dict[str, Any]]:
    """What each compiled function takes."""
    tensor, integer = nn.spec.Tensor, nn.spec.Int()
    weighted = {"$": {"param_mode": "packed", "effect_mode": "none"}}
    hidden = tensor(["n", shape.hidden], "float32")
    rotation = tensor(["positions", shape.head_dim // 2], "float32")
    return {
        "embed": {"ids": tensor(["n"], "int32"), **weighted},
        "run_layer": {
            "x": hidden,
            "start": integer,
            "cosine": rotation,
            "sine": rotation,
            "keys": tensor(["blocks", shape.kv_heads, shape.head_dim, LANES], "float32"),
            "values": tensor(["blocks", LANES, shape.kv_heads, shape.head_dim], "float32"),
            **weighted,
        },
        "head": {"x": hidden, **weighted},
    }


def _call(kernel: Any, name: str, args: list[Any], shape: tuple[Any, ...]) -> Tensor:
    return op.tensor_ir_op(kernel, name, args, Tensor.placeholder(shape, "float32"))
