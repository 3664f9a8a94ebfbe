"""Read a GGUF file's weights; llama.cpp's own Python library dequantises whatever type it can."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from gguf.quants import dequantize

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.gguf_file import GgufTensor, read_file
from runtimes.weights.fused import Heads
from runtimes.weights.stored import StoredWeights, by_rows

LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Those of architectures with other modules, and what their norms add to a weight: it is stored with
# that.
OTHER_NAMES = {"gemma3": {"ffn_norm": "pre_feedforward_layernorm"}}
NORM_OFFSETS = {"gemma3": 1.0}
NORM = re.compile(r".*norm\.weight")
GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# Of architectures that store some of them in one tensor.
FUSED_NAMES = {"phi3": {"ffn_up": "mlp.gate_up_proj"}}
# No weights: divisors of the rotary frequencies, which follow from the config.
DERIVED = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
# Layers whose rows the graphs of some architectures rotate in pairs → the metadata key of their
# head count. Of the others, rows are in Hugging Face's order.
ROTATED = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
ROTATED_BY = {
    **dict.fromkeys(("llama", "granite", "smollm3"), ROTATED),
    **{name: {} for name in ("gemma3", "olmo2", "phi3", "qwen2", "qwen3")},
}


def read(artifact: Artifact) -> StoredWeights:
    """See `runtimes.formats.dequantise`.

    Raises:
        InputError: it is no GGUF file, or has an unknown tensor.
    """
    paths = artifact.files(".gguf")
    files = [read_file(path) for path in paths]
    try:
        metadata = files[0][0]  # of splits, the first has the metadata of all
        family = metadata["general.architecture"]
        heads = {
            layer: int(metadata[f"{family}.{key}"]) for layer, key in ROTATED_BY[family].items()
        }
        names = {**LAYER_NAMES, **OTHER_NAMES.get(family, {}), **FUSED_NAMES.get(family, {})}
        offset = np.float32(NORM_OFFSETS.get(family, 0.0))
        sources = {
            _name(tensor.name, names): partial(_values, tensor, heads, offset)
            for _, stored in files
            for tensor in stored
            if tensor.name not in DERIVED
        }
        sizes = _heads(metadata, family) if family in FUSED_NAMES else None
    except (ValueError, KeyError) as error:
        raise InputError(f"{paths[0]}: cannot be read as a Llama GGUF file ({error})") from None
    return StoredWeights(sources, sizes, paths[0])


def _heads(metadata: Mapping[str, Any], family: str) -> Heads:
    """Of architectures whose heads are together as wide as the residual stream."""
    query, kv = (int(metadata[f"{family}.{key}"]) for key in ROTATED.values())
    return Heads(query, kv, int(metadata[f"{family}.embedding_length"]) // query)


def _name(name: str, names: Mapping[str, str]) -> str:
    match = LAYER_TENSOR.fullmatch(name)
    if match is None:
        return GLOBAL_NAMES[name]
    number, layer, kind = match.groups()
    return f"model.layers.{number}.{names[layer]}.{kind}"


def _values(tensor: GgufTensor, heads: dict[str, int], offset: np.float32) -> np.ndarray:
    data = np.atleast_2d(tensor.data)
    values = by_rows(len(data), lambda rows: dequantize(data[rows], tensor.type))
    values = values.reshape(tensor.shape)
    match = LAYER_TENSOR.fullmatch(tensor.name)
    if match and match[2] in heads:
        return split_rotary_pairs(values, heads[match[2]])
    return values - offset if offset and NORM.fullmatch(tensor.name) else values


def split_rotary_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads × size, …] with rotary partners side by side → first halves, second halves."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])  # [heads, size / 2, partner, …]
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
