"""llama.cpp's names of a decoder's tensors, and which of them have its rotary row order.

Source: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py
"""

from __future__ import annotations

from collections.abc import Callable

from edgeproof.families import DecoderConfig, Parameter, Role
from export.llamacpp.architectures import architecture_of

# No parameters: they follow from the config's rope scaling.
ROPE_FREQS = "rope_freqs.weight"
ROPE_LONG, ROPE_SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
NAMES = {
    Role.EMBEDDING: "token_embd.weight",
    Role.INPUT_NORM: "blk.{layer}.attn_norm.weight",
    Role.QUERY: "blk.{layer}.attn_q.weight",
    Role.KEY: "blk.{layer}.attn_k.weight",
    Role.VALUE: "blk.{layer}.attn_v.weight",
    Role.OUTPUT: "blk.{layer}.attn_output.weight",
    Role.ATTENTION_OUT_NORM: "blk.{layer}.post_attention_norm.weight",
    Role.MLP_NORM: "blk.{layer}.ffn_norm.weight",
    Role.GATE: "blk.{layer}.ffn_gate.weight",
    Role.UP: "blk.{layer}.ffn_up.weight",
    Role.DOWN: "blk.{layer}.ffn_down.weight",
    Role.MLP_OUT_NORM: "blk.{layer}.post_ffw_norm.weight",
    Role.FINAL_NORM: "output_norm.weight",
    Role.HEAD: "output.weight",
    Role.QUERY_BIAS: "blk.{layer}.attn_q.bias",
    Role.KEY_BIAS: "blk.{layer}.attn_k.bias",
    Role.VALUE_BIAS: "blk.{layer}.attn_v.bias",
    Role.OUTPUT_BIAS: "blk.{layer}.attn_output.bias",
    Role.GATE_BIAS: "blk.{layer}.ffn_gate.bias",
    Role.UP_BIAS: "blk.{layer}.ffn_up.bias",
    Role.DOWN_BIAS: "blk.{layer}.ffn_down.bias",
    Role.QUERY_NORM: "blk.{layer}.attn_q_norm.weight",
    Role.KEY_NORM: "blk.{layer}.attn_k_norm.weight",
}
# Of linear layers that the checkpoint has in one tensor: so has llama.cpp.
FUSED = {
    **dict.fromkeys((Role.QUERY, Role.KEY, Role.VALUE), "blk.{layer}.attn_qkv.weight"),
    **dict.fromkeys((Role.GATE, Role.UP), "blk.{layer}.ffn_up.weight"),
}
# Rows of these roles are rotated, or weigh what is: head by head.
ROTARY_HEADS: dict[Role, Callable[[DecoderConfig], int]] = {
    **dict.fromkeys((Role.QUERY, Role.QUERY_BIAS), lambda config: config.heads),
    **dict.fromkeys((Role.KEY, Role.KEY_BIAS), lambda config: config.kv_heads),
    Role.QUERY_NORM: lambda config: _normed_heads(config, Role.QUERY_NORM, config.heads),
    Role.KEY_NORM: lambda config: _normed_heads(config, Role.KEY_NORM, config.kv_heads),
}


def tensor_name(parameter: Parameter) -> str:
    """The name of the tensor in a GGUF file that it is, or whose rows it is some of."""
    names = NAMES if parameter.within is None else FUSED
    return names[parameter.role].format(layer=parameter.layer)


def rotary_heads(parameter: Parameter, config: DecoderConfig) -> int | None:
    """The number of heads whose rows are interleaved, or None for rows stored as they are."""
    heads = ROTARY_HEADS.get(parameter.role)
    return heads(config) if heads and architecture_of(config).rotary_pairs else None


def _normed_heads(config: DecoderConfig, role: Role, heads: int) -> int:
    """A norm of each head has one weight for all of them."""
    return 1 if config.structure.norms[role].per_head else heads
