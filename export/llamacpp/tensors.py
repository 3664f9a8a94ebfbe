"""llama.cpp's names of a decoder's tensors, and which of them have its rotary row order.

Source: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py
"""

from __future__ import annotations

from collections.abc import Callable

from export.architecture import DecoderConfig, Parameter, Role

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
# Hugging Face rotates channel i of a head with i + head_dim/2, llama.cpp's Llama graph rotates 2i
# with 2i + 1: rows of these roles are stored interleaved, head by head.
ROTARY_HEADS: dict[Role, Callable[[DecoderConfig], int]] = {
    Role.QUERY: lambda config: config.heads,
    Role.KEY: lambda config: config.kv_heads,
}


def tensor_name(parameter: Parameter) -> str:
    """The tensor's name in a GGUF file."""
    return NAMES[parameter.role].format(layer=parameter.layer)


def rotary_heads(parameter: Parameter, config: DecoderConfig) -> int | None:
    """The number of heads whose rows are interleaved, or None for rows stored as they are."""
    heads = ROTARY_HEADS.get(parameter.role)
    return heads(config) if heads else None
