"""The tokenizer of a merged checkpoint: the last adapter's that has one, else the base's.

As PEFT's users load it: an adapter that was trained with tokens of its own is saved with the
tokenizer that has them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.json_object import read_object
from edgeproof.checkpoints.settings import tokenizer_settings
from edgeproof.checkpoints.special_tokens import GENERATION
from edgeproof.checkpoints.tokenizer import ADDED, TOKENIZER, settled_tokenizer, tokenizer_files
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def tokenizer_of(checkpoint: Checkpoint, adapters: Sequence[Path]) -> dict[str, Path]:
    """Tokenizer, template and generation files of the merged checkpoint, by name.

    All of them are of one folder, but for generation_config.json, which adapters seldom have.
    """
    found = dict(checkpoint.tokenizer_files)
    owner: Path | None = None
    for folder in adapters:
        own = tokenizer_files(folder)
        if TOKENIZER not in own:
            continue
        if owner is not None and _differ(owner / TOKENIZER, own[TOKENIZER]):
            log.warning("%s: this tokenizer is used, not that of %s", own[TOKENIZER], owner)
        kept = {name: path for name, path in found.items() if name == GENERATION}
        found, owner = {**kept, **own}, folder
    return found


def check_fits(files: Mapping[str, Path], rows: int, folder: Path) -> None:
    """Refuse a tokenizer with ids that the embedding has no row for; `folder` is the adapter's.

    Raises:
        InputError: it has such ids, or cannot be understood.
    """

    def read(name: str) -> dict[str, Any]:
        return read_object(files[name]) if name in files else {}

    document = read(TOKENIZER)
    settled = settled_tokenizer(
        document, tokenizer_settings(read), files.get(TOKENIZER, folder / TOKENIZER)
    )
    tokens = settled.get(ADDED) or ()
    ids = [*_vocabulary(document), *(token["id"] for token in tokens)]
    highest = max(ids, default=0)
    if highest >= rows:
        raise InputError(
            f"{files[TOKENIZER]}: has a token {highest}, the merged embedding only {rows} rows: is"
            f" the grown embedding missing in {folder}?"
        )


def _vocabulary(document: Mapping[str, Any]) -> list[int]:
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        return [len(vocabulary) - 1]
    values = vocabulary.values() if isinstance(vocabulary, dict) else ()
    return [value for value in values if isinstance(value, int)]


def _differ(first: Path, second: Path) -> bool:
    return first.read_bytes() != second.read_bytes()
