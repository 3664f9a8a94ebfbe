"""`general.*` and architecture metadata, key by key as llama.cpp's converter writes them."""

from __future__ import annotations

from export.architecture import DecoderConfig
from export.artifact import ModelIdentity
from export.checkpoint import Checkpoint
from export.errors import InputError
from export.gguf.container import FLOAT32, STRING, UINT32, Entry
from export.gguf.naming import split_name
from export.gguf.vocabulary import vocabulary_entries

# Our family → llama.cpp's architecture, which is also the prefix of its keys.
ARCHITECTURES = {"llama": "llama"}
QUANTIZATION_VERSION = 2  # of the block types' layout; llama.cpp refuses quantised files without it


def metadata_entries(
    checkpoint: Checkpoint, identity: ModelIdentity, file_type: int
) -> list[Entry]:
    """All entries of the file, in the converter's order.

    Raises:
        InputError: the family or the tokenizer has no counterpart in llama.cpp.
    """
    config = checkpoint.config
    architecture = ARCHITECTURES.get(config.family)
    if architecture is None:
        raise InputError(f"GGUF export of {config.family} models is not supported yet")
    return [
        *_general(architecture, identity),
        *_dimensions(architecture, config),
        Entry("general.file_type", UINT32, file_type),
        Entry(f"{architecture}.vocab_size", UINT32, config.vocab),
        Entry(f"{architecture}.rope.dimension_count", UINT32, config.head_dim),
        Entry("general.quantization_version", UINT32, QUANTIZATION_VERSION),
        *vocabulary_entries(checkpoint),
    ]


def _general(architecture: str, identity: ModelIdentity) -> list[Entry]:
    parts = split_name(identity.name, identity.parameters)
    texts = {
        "architecture": architecture,
        "type": "model",
        "name": parts.title,
        "version": parts.version,
        "finetune": parts.finetune,
        "basename": parts.basename,
        "size_label": parts.size_label,
    }
    return [Entry(f"general.{key}", STRING, text) for key, text in texts.items() if text]


def _dimensions(architecture: str, config: DecoderConfig) -> list[Entry]:
    values = (
        ("block_count", UINT32, config.layers),
        ("context_length", UINT32, config.max_positions),
        ("embedding_length", UINT32, config.hidden),
        ("feed_forward_length", UINT32, config.intermediate),
        ("attention.head_count", UINT32, config.heads),
        ("attention.head_count_kv", UINT32, config.kv_heads),
        ("rope.freq_base", FLOAT32, config.rope_theta),
        ("attention.layer_norm_rms_epsilon", FLOAT32, config.norm_eps),
        ("attention.key_length", UINT32, config.head_dim),
        ("attention.value_length", UINT32, config.head_dim),
    )
    return [Entry(f"{architecture}.{key}", kind, value) for key, kind, value in values]
