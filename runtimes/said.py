"""What a folder of a checkpoint, or of an ONNX export, says of its special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeproof.artifact import MANIFEST
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.config import settled
from edgeproof.checkpoints.settings import tokenizer_settings
from edgeproof.checkpoints.special_tokens import CONFIG, GENERATION, Said
from edgeproof.checkpoints.tokenizer import ADDED, TOKENIZER, settled_tokenizer
from edgeproof.errors import DamagedExportError
from edgeproof.families import assumed_ids

Json = Mapping[str, Any]

# ONNX Runtime GenAI's builder writes this and no config.json. Its words → those of config.json:
# onnxruntime-genai, `models/builders/base.py`, `make_genai_config`.
GENAI = "genai_config.json"
GENAI_MODEL = {
    "type": "model_type",
    "context_length": "max_position_embeddings",
    **{name: name for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")},
}
GENAI_DECODER = {
    "head_size": "head_dim",
    **{
        name: name
        for name in (
            "hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
        )
    },
}  # fmt: skip


def config_of(folder: Path) -> Json:
    """What config.json says; where another maker left none, so much of it as GenAI's settings have.

    Raises:
        InputError: neither can be read, or one of our exports has lost it.
    """
    if has(folder, CONFIG) or has(folder, MANIFEST) or not has(folder, GENAI):
        return read_json(folder / CONFIG)
    try:
        model = read_json(folder / GENAI)["model"]
        parts = (model, GENAI_MODEL), (model["decoder"], GENAI_DECODER)
        return {names[key]: part[key] for part, names in parts for key in names if key in part}
    except (KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DamagedExportError(f"{folder / GENAI}: malformed ({what})") from None


def said_of(folder: Path) -> Said:
    """Of the files that are there; config.json has to be, or GenAI's.

    Raises:
        InputError: one of them cannot be read.
    """
    config = settled(config_of(folder))
    settings = tokenizer_settings(lambda name: read(folder, name))
    tokens = (
        settled_tokenizer(read(folder, TOKENIZER), settings, folder / TOKENIZER).get(ADDED)
        if has(folder, TOKENIZER)
        else ()
    )
    added = {token["content"]: token["id"] for token in tokens or ()}
    return Said(folder, read(folder, GENERATION), config, settings, added, assumed_ids(config))


def has(folder: Path, name: str) -> bool:
    """Whether it has a file of that name."""
    return (folder / name).is_file()


def read(folder: Path, name: str) -> Json:
    """A JSON file of the folder; an empty object where it is absent.

    Raises:
        InputError: it cannot be read.
    """
    return read_json(folder / name) if has(folder, name) else {}
