"""What a Hugging Face parameter or state name says: the layer, and which part of the decoder."""

from __future__ import annotations

import re

from runtimes.parity.localise.result import Component

LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
# In the order in which a layer computes them.
COMPONENTS = {
    "input_layernorm": Component.INPUT_NORM,
    "self_attn.q_proj": Component.Q_PROJ,
    "self_attn.k_proj": Component.K_PROJ,
    "self_attn.v_proj": Component.V_PROJ,
    "self_attn.q_norm": Component.HEAD_NORM,
    "self_attn.k_norm": Component.HEAD_NORM,
    "self_attn.q_rope": Component.ROPE,
    "self_attn.k_rope": Component.ROPE,
    "self_attn.o_proj.input": Component.ATTENTION,
    "self_attn.o_proj": Component.O_PROJ,
    "post_attention_layernorm.input": Component.O_PROJ,
    "post_attention_layernorm": Component.MLP_NORM,
    "mlp.gate_proj": Component.GATE_PROJ,
    "mlp.up_proj": Component.UP_PROJ,
    "mlp.down_proj.input": Component.ACTIVATION,
    "mlp.down_proj": Component.DOWN_PROJ,
    "post_feedforward_layernorm": Component.MLP_OUT_NORM,
}
GLOBAL = {
    "model.embed_tokens": Component.EMBEDDING,
    "model.norm": Component.FINAL_NORM,
    "lm_head": Component.HEAD,
}


def place_of(name: str) -> tuple[int | None, Component | None]:
    """Layer and component of a tensor, or of a module's result."""
    module = re.sub(r"\.(weight|bias)$", "", name)
    match = LAYER.fullmatch(module)
    if match is None:
        return None, GLOBAL.get(module)
    return int(match[1]), COMPONENTS.get(match[2])
