"""Read a GGUF file's weights; llama.cpp's own Python library dequantises whatever type it can."""

from __future__ import annotations

import re

import numpy as np
from gguf.quants import dequantize

from export.artifact import Artifact
from export.errors import InputError
from runtimes.gguf_file import StoredTensor, read_file

LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# Not a weight: divisors of the rotary frequencies, which follow from the config.
DERIVED = {"rope_freqs.weight"}
# Layers whose rows the graphs of some architectures rotate in pairs → the metadata key of their
# head count. Of the others, rows are in Hugging Face's order.
ROTATED = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
ROTATED_BY = {"llama": ROTATED, "qwen2": {}, "qwen3": {}}


def read(artifact: Artifact) -> dict[str, np.ndarray]:
    """See `runtimes.weights.dequantise`.

    Raises:
        InputError: it is no GGUF file, or has an unknown tensor or type.
    """
    paths = artifact.files(".gguf")
    files = [read_file(path) for path in paths]
    try:
        metadata = files[0][0]  # of splits, the first has the metadata of all
        family = metadata["general.architecture"]
        heads = {
            layer: int(metadata[f"{family}.{key}"]) for layer, key in ROTATED_BY[family].items()
        }
        tensors = [tensor for _, stored in files for tensor in stored]
        return dict(_tensor(tensor, heads) for tensor in tensors if tensor.name not in DERIVED)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"{paths[0]}: cannot be read as a Llama GGUF file ({error})") from None


def _tensor(tensor: StoredTensor, heads: dict[str, int]) -> tuple[str, np.ndarray]:
    values = dequantize(tensor.data, tensor.type).astype(np.float32, copy=False)
    values = values.reshape(tensor.shape)
    match = LAYER_TENSOR.fullmatch(tensor.name)
    if match is None:
        return GLOBAL_NAMES[tensor.name], values
    number, layer, kind = match.groups()
    if layer in heads:
        values = split_rotary_pairs(values, heads[layer])
    return f"model.layers.{number}.{LAYER_NAMES[layer]}.{kind}", values


def split_rotary_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads × size, …] with rotary partners side by side → first halves, second halves."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])  # [heads, size / 2, partner, …]
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
