"""What a folder of a checkpoint, or of an ONNX export, says of its special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.config import settled
from edgeproof.checkpoints.settings import tokenizer_settings
from edgeproof.checkpoints.special_tokens import CONFIG, GENERATION, Said
from edgeproof.checkpoints.tokenizer import ADDED, TOKENIZER, settled_tokenizer
from edgeproof.families import assumed_ids

Json = Mapping[str, Any]


def said_of(folder: Path) -> Said:
    """Of the files that are there; config.json has to be.

    Raises:
        InputError: one of them cannot be read.
    """
    config = settled(read_json(folder / CONFIG))
    settings = tokenizer_settings(lambda name: read(folder, name))
    tokens = (
        settled_tokenizer(read(folder, TOKENIZER), settings).get(ADDED)
        if has(folder, TOKENIZER)
        else ()
    )
    added = {token["content"]: token["id"] for token in tokens or ()}
    return Said(read(folder, GENERATION), config, settings, added, assumed_ids(config))


def has(folder: Path, name: str) -> bool:
    """Whether it has a file of that name."""
    return (folder / name).is_file()


def read(folder: Path, name: str) -> Json:
    """A JSON file of the folder; an empty object where it is absent.

    Raises:
        InputError: it cannot be read.
    """
    return read_json(folder / name) if has(folder, name) else {}
