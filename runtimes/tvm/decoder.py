"""The decoder as a Relax module: one layer, the embedding and the head.

All layers have the same shape, so one compiled layer serves all of them and the compile time does
not grow with the depth; the caller passes each layer's weights. Prefill and decode are the same
functions, for any number of new positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from tvm.ir import IRModule
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgeproof.families import Role
from edgeproof.families.structure import Activation
from runtimes.tvm import kernels
from runtimes.tvm.kernels import LANES, panels
from runtimes.tvm.model_config import DecoderShape


class Matrix(nn.Module):  # type: ignore[misc]
    """A weight [outs, ins], stored as panels in the model dtype, with a bias or without."""

    def __init__(self, outs: int, ins: int, dtype: str, *, biased: bool = False) -> None:
        self.outs, self.ins, self.dtype = outs, ins, dtype
        self.stored: dict[str, tuple[int, ...]] = {"weight": (outs, ins)}
        self.weight = nn.Parameter((panels(outs), ins, LANES), dtype)
        if biased:
            self.stored["bias"] = (outs,)
            self.bias = nn.Parameter((outs,), dtype)

    def apply(self, x: Tensor) -> Tensor:
        """Float32 [n, ins] · weightᵀ + bias → float32 [n, outs]."""
        kernel = kernels.matmul(self.outs, self.ins, self.dtype)
        y = _call(kernel, "matmul", [x, self.weight], (x.shape[0], self.outs))
        return y + op.astype(self.bias, "float32") if "bias" in self.stored else y

    def take(self, ids: Tensor) -> Tensor:
        """Rows: float32 [n, ins]."""
        kernel = kernels.embed(self.outs, self.ins, self.dtype)
        return _call(kernel, "take_rows", [ids, self.weight], (ids.shape[0], self.ins))


class Norm(nn.Module):  # type: ignore[misc]
    """RMSNorm in float32: residual channels exceed what float16 can square."""

    def __init__(self, size: int, eps: float, dtype: str) -> None:
        self.stored: dict[str, tuple[int, ...]] = {"weight": (size,)}
        self.weight = nn.Parameter((size,), dtype)
        self.eps = eps

    def apply(self, x: Tensor) -> Tensor:
        """Normalise [n, …, size] over the last axis."""
        return op.rms_norm(x, op.astype(self.weight, "float32"), -1, self.eps)


class Layer(nn.Module):  # type: ignore[misc]
    """One decoder layer. Each of its modules is an attribute named after its `Role`.

    Of fused projections that is the first one's (`query`) or, with or without a gate, `up`.
    """

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.shape = shape
        norms = shape.structure.norms
        widths = {Role.QUERY_NORM: shape.query_rows, Role.KEY_NORM: shape.key_rows}
        for role in (role for role in norms if role is not Role.FINAL_NORM):
            width = shape.head_dim if norms[role].per_head else widths.get(role, shape.hidden)
            setattr(self, role.value, Norm(width, shape.norm_eps, dtype))
        inner = shape.intermediate * (2 if shape.structure.gated else 1)
        self.query = Matrix(shape.qkv_rows, shape.hidden, dtype, biased=shape.input_biases)
        self.output = Matrix(shape.hidden, shape.query_rows, dtype, biased=shape.output_bias)
        self.up = Matrix(inner, shape.hidden, dtype)
        self.down = Matrix(shape.hidden, shape.intermediate, dtype)

    def apply(self, x: Tensor, start: Any, cache: list[Tensor]) -> Tensor:
        """Hidden states [n, hidden] → [n, hidden].

        `cache` is cosine, sine, keys, values; keys and values are written in place.
        """
        residual = self.shape.structure.multipliers.residual
        y = self._attention(self._norm(Role.INPUT_NORM, x), start, cache)
        x = x + _times(self._norm(Role.ATTENTION_OUT_NORM, y), residual)
        y = self._feed_forward(self._norm(Role.MLP_NORM, x))
        return x + _times(self._norm(Role.MLP_OUT_NORM, y), residual)

    def _norm(self, role: Role, x: Tensor) -> Tensor:
        """What the norm of that role makes of x; x itself where the layer has none."""
        norm: Norm | None = getattr(self, role.value, None)
        return x if norm is None else norm.apply(x)

    def _attention(self, x: Tensor, start: Any, cache: list[Tensor]) -> Tensor:
        """Grouped-query attention over the KV cache."""
        qkv = self._normed_heads(self.query.apply(x))
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
        return self.output.apply(mixed)

    def _normed_heads(self, qkv: Tensor) -> Tensor:
        """The projections with queries and keys normalised, where the layer does that."""
        norms = self.shape.structure.norms
        if Role.QUERY_NORM not in norms:
            return qkv
        bounds = [self.shape.query_rows, self.shape.query_rows + self.shape.key_rows]
        query, key, value = op.split(qkv, bounds, axis=-1)
        parts = [(Role.QUERY_NORM, query, bounds[0]), (Role.KEY_NORM, key, self.shape.key_rows)]
        normed = []
        for role, x, width in parts:
            size = self.shape.head_dim if norms[role].per_head else width
            heads = op.reshape(x, (x.shape[0], width // size, size))
            normed.append(op.reshape(self._norm(role, heads), (x.shape[0], width)))
        return op.concat([*normed, value], dim=-1)

    def _feed_forward(self, x: Tensor) -> Tensor:
        structure = self.shape.structure
        activation = ACTIVATIONS[structure.activation]
        y = self.up.apply(x)
        if structure.gated:
            gate, up = op.split(y, 2, axis=-1)
            return self.down.apply(activation(gate) * up)
        return self.down.apply(activation(y))


class Decoder(nn.Module):  # type: ignore[misc]
    """Everything that computes; `layer` stands for every layer, weights are in `dtype`."""

    def __init__(self, shape: DecoderShape, dtype: str) -> None:
        self.shape = shape
        self.embedding = Matrix(shape.vocab, shape.hidden, dtype)
        self.layer = Layer(shape, dtype)
        self.final_norm = Norm(shape.hidden, shape.norm_eps, dtype)
        if not shape.tied:
            self.head = Matrix(shape.vocab, shape.hidden, dtype)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids int32 [n] → float32 [n, hidden]."""
        return _times(self.embedding.take(ids), self.shape.structure.multipliers.embedding)

    def run_layer(
        self, x: Tensor, start: Any, cosine: Tensor, sine: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """One layer for positions start … start + n − 1: float32 [n, hidden] → [n, hidden]."""
        return self.layer.apply(x, start, [cosine, sine, keys, values])

    def project(self, x: Tensor) -> Tensor:
        """Hidden states [n, hidden] → logits [n, vocab]."""
        matrix = self.embedding if self.shape.tied else self.head
        multiplier = self.shape.structure.multipliers.logits
        return matrix.apply(_times(self.final_norm.apply(x), multiplier))


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.SILU: op.silu,
    Activation.GELU_TANH: partial(op.gelu, approximate="tanh"),
}


def lower(shape: DecoderShape, dtype: str) -> IRModule:
    """The decoder as IR, not yet compiled."""
    module, _ = Decoder(shape, dtype).export_tvm(signatures(shape))
    return module


def parameters(shape: DecoderShape, dtype: str) -> dict[str, tuple[int, ...]]:
    """Logical shapes of the parameters, in the order in which the compiled functions take them.

    Names are MLC's, with `{layer}` for the number of a layer.
    """
    decoder = Decoder(shape, dtype)
    shapes = {}
    for name, _ in decoder.named_parameters():
        path, _, kind = name.rpartition(".")
        role = Role(path.rpartition(".")[2])
        shapes[f"{shape.modules[role]}.{kind}"] = attrgetter(path)(decoder).stored[kind]
    return shapes


def signatures(shape: DecoderShape) -> dict[str, dict[str, Any]]:
    """What each compiled function takes."""
    tensor, integer = nn.spec.Tensor, nn.spec.Int()
    weighted = {"$": {"param_mode": "packed", "effect_mode": "none"}}
    hidden = tensor(["n", shape.hidden], "float32")
    rotation = tensor(["positions", shape.rotated // 2], "float32")
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
        "project": {"x": hidden, **weighted},
    }


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def _call(kernel: Any, name: str, args: list[Any], shape: tuple[Any, ...]) -> Tensor:
    return op.tensor_ir_op(kernel, name, args, Tensor.placeholder(shape, "float32"))
