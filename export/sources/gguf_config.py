"""config.json and generation_config.json from a GGUF file's metadata.

Invariant: whatever the metadata says that the family's plain decoder does not compute is refused.
Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeproof.errors import InputError
from export.sources.gguf_container import GgufFile
from export.sources.gguf_metadata import Metadata
from export.sources.gguf_rope import rope_config
from export.sources.gguf_types import FLOATS

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# llama.cpp's architecture → the class that transformers names in config.json. Its `model_type` is
# the architecture's name.
CLASSES = {
    "granite": "GraniteForCausalLM",
    "llama": "LlamaForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
# What a Llama file with biases has; the others follow, or are missing.
ATTENTION_BIAS, MLP_BIAS = "blk.0.attn_output.bias", "blk.0.ffn_down.bias"
# Key → of config.json, of architectures that read a multiplier there.
MULTIPLIERS = {
    "granite": {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    }
}
# Key → is its value the plain decoder's? Each of these changes the function computed.
PLAIN: dict[str, Callable[[Any], bool]] = {
    "expert_count": lambda value: value == 0,
    "rope.scale_linear": lambda value: value == 1.0,
    "attention.causal": lambda value: value is True,
    "attention.sliding_window": lambda value: value == 0,
    "attention.clamp_kqv": lambda value: value == 0.0,
    "logit_scale": lambda value: value == 1.0,
    "embedding_scale": lambda value: value == 1.0,
    "residual_scale": lambda value: value == 1.0,
    "attention.scale": lambda value: value == 0.0,
}


def model_config(file: GgufFile) -> dict[str, Any]:
    """config.json of the decoder in a GGUF file.

    Raises:
        InputError: another architecture, a missing or wrong key, or a feature beyond the plain
            decoder.
    """
    meta = file.metadata
    family = _plain_family(meta)
    hidden = meta.integer(f"{family}.embedding_length")
    vocab, layers = len(meta.texts("tokenizer.ggml.tokens")), meta.integer(f"{family}.block_count")
    _check_extent(file, vocab, hidden, layers)
    heads = meta.integer(f"{family}.attention.head_count")
    head_dim = meta.integer(f"{family}.attention.key_length", hidden // max(1, heads))
    for key in (f"{family}.attention.value_length", f"{family}.rope.dimension_count"):
        if meta.integer(key, head_dim) != head_dim:
            raise InputError(
                f"{file.path}: {key} differs from the head size {head_dim}: unsupported"
            )
    return {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": meta.integer(f"{family}.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": meta.integer(f"{family}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": vocab,
        "max_position_embeddings": meta.integer(f"{family}.context_length"),
        "rms_norm_eps": meta.number(f"{family}.attention.layer_norm_rms_epsilon"),
        **rope_config(file, family, head_dim),
        **{
            name: meta.number(f"{family}.{key}")
            for key, name in MULTIPLIERS.get(family, {}).items()
        },
        "hidden_act": "silu",
        "attention_bias": ATTENTION_BIAS in file.tensors,
        "mlp_bias": MLP_BIAS in file.tensors,
        "tie_word_embeddings": HEAD not in file.tensors,
        "torch_dtype": _torch_dtype(file),
        **special_ids(meta),
    }


def generation_config(meta: Metadata) -> dict[str, Any]:
    """generation_config.json: the special tokens' ids."""
    return {"_from_model_config": True, **special_ids(meta)}


def special_ids(meta: Metadata) -> dict[str, int]:
    """The ids of the begin, end and padding tokens that the metadata names."""
    keys = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {
        name: meta.integer(f"tokenizer.ggml.{word}_token_id")
        for name, word in keys.items()
        if f"tokenizer.ggml.{word}_token_id" in meta
    }


def model_name(meta: Metadata) -> str | None:
    """The model's own name, where it is one printable line."""
    name = meta.text("general.name", "").strip()
    return name if 0 < len(name) <= 128 and name.isprintable() else None


def _plain_family(meta: Metadata) -> str:
    architecture = meta.text("general.architecture")
    if architecture not in CLASSES:
        known = ", ".join(CLASSES)
        raise InputError(f"{meta.path}: unknown architecture {architecture!r}; supported: {known}")
    known_keys = MULTIPLIERS.get(architecture, {})
    for key, plain in PLAIN.items():
        value = meta.value(f"{architecture}.{key}")
        if value is not None and key not in known_keys and not plain(value):
            raise InputError(f"{meta.path}: {architecture}.{key} = {value!r} is not supported yet")
    return architecture


def _check_extent(file: GgufFile, vocab: int, hidden: int, layers: int) -> None:
    """Tables are built from these numbers, so they must first agree with what the file holds."""
    embedding = file.tensors.get(EMBEDDING)
    if embedding is None:
        raise InputError(f"{file.path}: tensor {EMBEDDING} is missing; is this a language model?")
    if embedding.shape != (vocab, hidden):
        raise InputError(
            f"{file.path}: tensor {EMBEDDING} has shape {list(embedding.shape)},"
            f" the metadata asks for {[vocab, hidden]}"
        )
    if layers > len(file.tensors):
        raise InputError(f"{file.path}: {layers} layers, but only {len(file.tensors)} tensors")


def _torch_dtype(file: GgufFile) -> str:
    """The type that all matrices share as they will be written, or float32."""
    matrices = {tensor.storage.name for tensor in file.tensors.values() if len(tensor.shape) > 1}
    only = matrices.pop() if len(matrices) == 1 else "F32"
    return TORCH_DTYPES[only if only in FLOATS else "F32"]
