"""A layer that shows what happens inside: the decoder's own modules and kernels, watched.

It is compiled only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.ir import IRModule
from tvm.relax.frontend.nn import Tensor

from runtimes.tvm.decoder import Decoder, signatures
from runtimes.tvm.model_config import DecoderShape

# What `watch_layer` gives after the layer's own result: each module's, and what some of them take.
STATES = (
    "input_layernorm",
    "self_attn.qkv_proj",
    "self_attn.o_proj.input",
    "self_attn.o_proj",
    "post_attention_layernorm.input",
    "post_attention_layernorm",
    "mlp.gate_up_proj",
    "mlp.down_proj.input",
    "mlp.down_proj",
)


class Watched(Decoder):
    """The decoder with one more function."""

    def watch_layer(
        self, x: Tensor, start: Any, cosine: Tensor, sine: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, ...]:
        """As `run_layer`, and then the `STATES`."""
        seen: dict[str, Tensor] = {}

        def watch(name: str, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def watched(taken: Tensor, *others: Any) -> Tensor:
                seen[f"{name}.input"] = taken
                seen[name] = compute(taken, *others)
                return seen[name]

            return watched

        layer = self.layer
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm = getattr(layer, name)
            norm.forward = watch(name, norm.forward)
        for name, matrix in (
            ("self_attn.qkv_proj", layer.self_attn.qkv_proj),
            ("self_attn.o_proj", layer.self_attn.o_proj),
            ("mlp.gate_up_proj", layer.mlp.gate_up_proj),
            ("mlp.down_proj", layer.mlp.down_proj),
        ):
            matrix.apply = watch(name, matrix.apply)  # type: ignore[method-assign]
        result = self.run_layer(x, start, cosine, sine, keys, values)
        return (result, *(seen[name] for name in STATES))


def lower_probe(shape: DecoderShape, dtype: str) -> IRModule:
    """The watched layer as IR, not yet compiled; parameters as those of the decoder."""
    wanted = {"watch_layer": signatures(shape)["run_layer"]}
    module, _ = Watched(shape, dtype).export_tvm(wanted)
    return module
