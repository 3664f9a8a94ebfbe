"""`general.*` and architecture metadata, key by key as llama.cpp's converter writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeproof.artifact import ModelIdentity
from edgeproof.families import DecoderConfig
from edgeproof.families.llama_cpp import LlamaCppArchitecture
from edgeproof.families.rope import LinearScaling
from export.checkpoint import Checkpoint
from export.checkpoint.model_card import read_model_card
from export.gguf.authorship import (
    CARD_ORIGINS,
    HUB,
    general_texts,
    list_entries,
    origin_entries,
    sampling_entries,
)
from export.gguf.container import BOOL, FLOAT32, STRING, UINT32, MetadataEntry, ValueType
from export.gguf.model_names import check_name
from export.gguf.naming import size_label, split_name
from export.gguf.vocabulary import vocabulary_entries
from export.llamacpp.architectures import architecture_of

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Of what an architecture states beyond the keys of all.
TYPES: Mapping[type, ValueType] = {bool: BOOL, int: UINT32, float: FLOAT32, str: STRING}
KEY_LENGTH, VALUE_LENGTH = "attention.key_length", "attention.value_length"
QUANTIZATION_VERSION = 2  # of the block types' layout; llama.cpp refuses quantised files without it


def metadata_entries(
    checkpoint: Checkpoint, identity: ModelIdentity, file_type: int
) -> list[MetadataEntry]:
    """All entries of the file, in the converter's order.

    Raises:
        InputError: the tokenizer has no counterpart in llama.cpp.
    """
    config = checkpoint.config
    architecture = architecture_of(config)
    name = architecture.name
    extents = [
        MetadataEntry(f"{name}.vocab_size", UINT32, config.vocab),
        MetadataEntry(f"{name}.rope.dimension_count", UINT32, config.head_dim),
    ]
    entries = [
        *_general(name, checkpoint, identity),
        *_dimensions(architecture, config, head_size="head_dim" in checkpoint.raw_config),
        MetadataEntry("general.file_type", UINT32, file_type),
        *(extents if architecture.extents else ()),
        *(
            MetadataEntry(f"{name}.{key}", TYPES[type(value)], value)
            for key, value in architecture.keys(config).items()
        ),
        MetadataEntry("general.quantization_version", UINT32, QUANTIZATION_VERSION),
        *vocabulary_entries(checkpoint, space_prefix=architecture.extents),
    ]
    stated = {entry.key: entry.value for entry in entries}
    check_name(str(stated.get("general.name")), set(stated["tokenizer.ggml.tokens"]))
    return entries


def naming_texts(entries: Sequence[MetadataEntry]) -> dict[str, str]:
    """The `general.*` texts among entries, for naming the file."""
    prefix = "general."
    return {
        entry.key.removeprefix(prefix): entry.value
        for entry in entries
        if entry.key.startswith(prefix) and isinstance(entry.value, str)
    }


def _general(
    architecture: str, checkpoint: Checkpoint, identity: ModelIdentity
) -> list[MetadataEntry]:
    card = read_model_card(checkpoint.path)
    parts = split_name(_model_id(checkpoint, identity), identity.parameters)
    if parts.size_label is None:
        parts = replace(parts, size_label=size_label(identity.parameters))
    texts = general_texts(card, parts, _source_urls(identity))
    return [
        MetadataEntry("general.architecture", STRING, architecture),
        MetadataEntry("general.type", STRING, "model"),
        *sampling_entries(checkpoint.json_file("generation_config.json")),
        *(MetadataEntry(f"general.{key}", STRING, text) for key, text in texts.items()),
        *origin_entries(_with_base(card, checkpoint, identity), identity.parameters),
        *list_entries(card),
    ]


def _model_id(checkpoint: Checkpoint, identity: ModelIdentity) -> str:
    """The name with its organization, where the hub or config.json says it."""
    recorded = checkpoint.recorded_base
    full = re.compile(rf"[\w.-]+/{re.escape(identity.name)}")
    for candidate in (identity.repo, recorded):
        if candidate is not None and full.fullmatch(candidate):
            return candidate
    return identity.name


def _with_base(
    card: Mapping[str, Any], checkpoint: Checkpoint, identity: ModelIdentity
) -> Mapping[str, Any]:
    """The card; where it names no base, with the one that config.json says the model is from."""
    base = checkpoint.recorded_base
    own = (identity.repo, _model_id(checkpoint, identity))
    if base is None or base in own or any(field in card for field in CARD_ORIGINS["base_model"]):
        return card
    return {**card, "base_model": base}


def _source_urls(identity: ModelIdentity) -> dict[str, str]:
    """Where a hub model is, with its commit. The converter, which sees a folder, has neither."""
    if identity.repo is None or HUB_ID.fullmatch(identity.repo) is None:
        return {}
    page = f"{HUB}/{identity.repo}"
    tree = f"{page}/tree/{identity.revision}" if identity.revision else page
    return {"source.url": tree, "source.repo_url": page}


def _dimensions(
    architecture: LlamaCppArchitecture, config: DecoderConfig, *, head_size: bool
) -> list[MetadataEntry]:
    """`head_size`: config.json has it."""
    lacks = architecture.lacks
    if not (architecture.head_size or head_size):
        lacks |= {KEY_LENGTH, VALUE_LENGTH}
    scaling = config.rope.scaling
    linear = (
        (
            ("rope.scaling.type", STRING, scaling.kind),
            ("rope.scaling.factor", FLOAT32, scaling.factor),
        )
        if isinstance(scaling, LinearScaling)
        else ()
    )
    values: tuple[tuple[str, ValueType, object], ...] = (
        ("block_count", UINT32, config.layers),
        ("context_length", UINT32, config.max_positions),
        ("embedding_length", UINT32, config.hidden),
        ("feed_forward_length", UINT32, config.intermediate),
        ("attention.head_count", UINT32, config.heads),
        ("attention.head_count_kv", UINT32, config.kv_heads),
        *linear,
        ("rope.freq_base", FLOAT32, config.rope.theta),
        ("attention.layer_norm_rms_epsilon", FLOAT32, config.norm_eps),
        (KEY_LENGTH, UINT32, config.head_dim),
        (VALUE_LENGTH, UINT32, config.head_dim),
    )
    return [
        MetadataEntry(f"{architecture.name}.{key}", kind, value)
        for key, kind, value in values
        if key not in lacks
    ]
