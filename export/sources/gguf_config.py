"""config.json and generation_config.json from a GGUF file's metadata.

Invariant: whatever the metadata says that the family's decoder does not compute is refused.
Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeproof.errors import InputError
from export.sources.gguf_architectures import ARCHITECTURES, Architecture
from export.sources.gguf_container import GgufFile
from export.sources.gguf_metadata import Metadata
from export.sources.gguf_types import FLOATS

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
ENDS = ("eos", "eot", "eom")  # of a text, a turn, a message
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# What a Llama file with biases has; the others follow, or are missing.
ATTENTION_BIAS, MLP_BIAS = "blk.0.attn_output.bias", "blk.0.ffn_down.bias"
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
    "final_logit_softcapping": lambda value: value == 0.0,
}


def model_config(file: GgufFile) -> dict[str, Any]:
    """config.json of the decoder in a GGUF file.

    Raises:
        InputError: another architecture, a missing or wrong key, or a feature beyond the
            family's decoder.
    """
    meta = file.metadata
    architecture = _architecture(meta)
    prefix = architecture.name
    hidden = meta.integer(f"{prefix}.embedding_length")
    vocab, layers = len(meta.texts("tokenizer.ggml.tokens")), meta.integer(f"{prefix}.block_count")
    _check_extent(file, vocab, hidden, layers)
    heads = meta.integer(f"{prefix}.attention.head_count")
    key_length = f"{prefix}.attention.key_length"
    head_dim = meta.integer(key_length, hidden // max(1, heads))
    value_length = f"{prefix}.attention.value_length"
    if meta.integer(value_length, head_dim) != head_dim:
        raise InputError(
            f"{file.path}: {value_length} differs from the head size {head_dim}: unsupported"
        )
    return {
        "architectures": [architecture.transformers],
        "model_type": architecture.model_type or prefix,
        "hidden_size": hidden,
        "intermediate_size": meta.integer(f"{prefix}.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": meta.integer(f"{prefix}.attention.head_count_kv", heads),
        **({"head_dim": head_dim} if architecture.head_size or key_length in meta else {}),
        "vocab_size": vocab,
        "max_position_embeddings": meta.integer(f"{prefix}.context_length"),
        "rms_norm_eps": meta.number(f"{prefix}.attention.layer_norm_rms_epsilon"),
        **architecture.rope(file, prefix, head_dim),
        **architecture.own(meta),
        "attention_bias": ATTENTION_BIAS in file.tensors,
        "mlp_bias": MLP_BIAS in file.tensors,
        "tie_word_embeddings": HEAD not in file.tensors,
        "torch_dtype": _torch_dtype(file),
        **special_ids(meta),
    }


def generation_config(meta: Metadata) -> dict[str, Any]:
    """generation_config.json: the special tokens' ids, and every end of a reply that is stated."""
    keys = [f"tokenizer.ggml.{word}_token_id" for word in ENDS]
    ends = list(dict.fromkeys(meta.integer(key) for key in keys if key in meta))
    further = {"eos_token_id": ends} if len(ends) > 1 else {}
    return {"_from_model_config": True, **special_ids(meta), **further}


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


def _architecture(meta: Metadata) -> Architecture:
    name = meta.text("general.architecture")
    found = next((item for item in ARCHITECTURES if item.name == name), None)
    if found is None:
        known = ", ".join(item.name for item in ARCHITECTURES)
        raise InputError(f"{meta.path}: unknown architecture {name!r}; supported: {known}")
    for key, plain in PLAIN.items():
        value = meta.value(f"{name}.{key}")
        if value is not None and key not in found.reads and not plain(value):
            raise InputError(f"{meta.path}: {name}.{key} = {value!r} is not supported yet")
    return found


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
