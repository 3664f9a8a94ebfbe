"""Bind the checkpoint's parameters to llama.cpp's tensors: names, order, rotary row order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from export.architecture import DecoderConfig, Parameter, Role, Target, check_bound
from export.architecture.mapping import Transform
from export.checkpoint import Checkpoint

# https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py
NAMES = {
    Role.EMBEDDING: "token_embd.weight",
    Role.INPUT_NORM: "blk.{layer}.attn_norm.weight",
    Role.QUERY: "blk.{layer}.attn_q.weight",
    Role.KEY: "blk.{layer}.attn_k.weight",
    Role.VALUE: "blk.{layer}.attn_v.weight",
    Role.OUTPUT: "blk.{layer}.attn_output.weight",
    Role.POST_NORM: "blk.{layer}.ffn_norm.weight",
    Role.GATE: "blk.{layer}.ffn_gate.weight",
    Role.UP: "blk.{layer}.ffn_up.weight",
    Role.DOWN: "blk.{layer}.ffn_down.weight",
    Role.FINAL_NORM: "output_norm.weight",
    Role.HEAD: "output.weight",
}
ROTARY_HEADS: dict[Role, Callable[[DecoderConfig], int]] = {
    Role.QUERY: lambda config: config.heads,
    Role.KEY: lambda config: config.kv_heads,
}


def bind(checkpoint: Checkpoint) -> list[Target]:
    """Every tensor of the file, in the order of llama.cpp's converter.

    That order is the one of the safetensors headers, shards sorted by file name.
    """
    parameters = {parameter.name: parameter for parameter in checkpoint.parameters}
    order = sorted(checkpoint.stored_order, key=lambda name: checkpoint.file_of(name).name)
    targets = [_target(parameters[name], checkpoint.config) for name in order]
    check_bound(targets, checkpoint.parameters)
    return targets


def _target(parameter: Parameter, config: DecoderConfig) -> Target:
    heads = ROTARY_HEADS.get(parameter.role)
    return Target(
        name=NAMES[parameter.role].format(layer=parameter.layer),
        sources=(parameter,),
        shape=parameter.shape,
        transform=interleave_rotary_rows(heads(config)) if heads else None,
    )


def interleave_rotary_rows(heads: int) -> Transform:
    """Reorder rows [heads × head_dim, in] from rotary halves to rotary pairs.

    Hugging Face rotates channel i of a head with i + head_dim/2, llama.cpp's Llama graph rotates 2i
    with 2i + 1.
    """

    def transform(arrays: Sequence[np.ndarray]) -> np.ndarray:
        (rows,) = arrays
        halves = rows.reshape(heads, 2, -1, rows.shape[1])  # [heads, half, head_dim / 2, in]
        return np.asarray(halves.swapaxes(1, 2).reshape(rows.shape))

    return transform
