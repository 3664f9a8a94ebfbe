"""Tiny Llama GGUF files of every storage type, written with llama.cpp's own gguf library."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, TokenType, quants
from safetensors.numpy import load_file

from tests import tiny

# Rows of 256 values, so that K-quants fit.
CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


@dataclass(frozen=True)
class TinyGguf:
    """The file, the checkpoint it was made from, and its tensors dequantised by the library."""

    path: Path
    checkpoint: Path
    stored: dict[str, np.ndarray]


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, middle = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{NAMES[middle]}.weight"


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Half-split rotary rows to neighbouring pairs, as llama.cpp's converter permutes q and k."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def as_stored(name: str, weight: np.ndarray, raw: dict[str, Any]) -> np.ndarray:
    """A Hugging Face tensor with its rows in llama.cpp's order."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for suffix, key in heads.items():
        if name.endswith(f"{suffix}.weight"):
            return interleave(weight, raw[key])
    return weight


def random_blocks(shape: tuple[int, ...], kind: GGMLQuantizationType, seed: int = 0) -> np.ndarray:
    """Valid rows of a type that the library cannot quantise to.

    Bytes below 0x78 keep every float16 scale among them finite.
    """
    byte_shape = quants.quant_shape_to_byte_shape(shape, kind)
    return np.random.default_rng(seed).integers(0, 0x78, byte_shape, dtype=np.uint8)


def encode(weight: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Quantise where the library can, else random valid blocks."""
    try:
        return np.asarray(quants.quantize(weight, kind))
    except NotImplementedError:
        return random_blocks(weight.shape, kind)


def write(
    folder: Path,
    kind: str = "F32",
    *,
    pre: str | None = "smollm",
    tokenizer: dict[str, Any] | None = None,
    architecture: str = "llama",
    metadata: Callable[[GGUFWriter], None] = lambda writer: None,
    tensors: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None,
    plain: Collection[str] = (),
    **changes: Any,
) -> TinyGguf:
    """Write `<folder>/tiny.gguf`; matrices have type `kind`, norms and those that stay `plain` F32.

    `tokenizer` replaces the checkpoint's vocabulary and merges; `metadata` adds keys; `tensors`
    may edit the float32 arrays (llama.cpp's names and row order).
    """
    checkpoint = tiny.make_checkpoint(folder / "checkpoint", **{**CONFIG, **changes})
    raw = json.loads((checkpoint / "config.json").read_text())
    weights = load_file(checkpoint / "model.safetensors")
    arrays = {gguf_name(name): as_stored(name, value, raw) for name, value in weights.items()}
    tensors(arrays)
    path = folder / "tiny.gguf"
    writer = GGUFWriter(path, architecture)
    _add_config(writer, raw)
    model = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    _add_tokenizer(writer, tokenizer or model, pre)
    metadata(writer)
    stored = {}
    for name, array in arrays.items():
        matrix = array.ndim > 1
        storage = GGMLQuantizationType[kind if matrix and name not in plain else "F32"]
        assert not matrix or array.shape[-1] % GGML_QUANT_SIZES[storage][0] == 0
        data = encode(array, storage)
        writer.add_tensor(name, data, raw_dtype=storage)
        stored[name] = quants.dequantize(data, storage)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return TinyGguf(path, checkpoint, stored)


def _add_config(writer: GGUFWriter, raw: dict[str, Any]) -> None:
    writer.add_name("Tiny Test")
    writer.add_block_count(raw["num_hidden_layers"])
    writer.add_context_length(raw["max_position_embeddings"])
    writer.add_embedding_length(raw["hidden_size"])
    writer.add_feed_forward_length(raw["intermediate_size"])
    writer.add_head_count(raw["num_attention_heads"])
    writer.add_head_count_kv(raw["num_key_value_heads"])
    writer.add_rope_freq_base(raw["rope_theta"])
    writer.add_rope_dimension_count(raw["head_dim"])
    writer.add_layer_norm_rms_eps(raw["rms_norm_eps"])


def _add_tokenizer(writer: GGUFWriter, model: dict[str, Any], pre: str | None) -> None:
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    tokens += [f"[PAD{index}]" for index in range(len(tokens), tiny.VOCAB)]
    special = {True: TokenType.CONTROL, False: TokenType.NORMAL}
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([special[token in tiny.SPECIAL] for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(tiny.CHAT_TEMPLATE)
