"""A checkpoint's folder: config, tokenizer and safetensors files, whatever the architecture.

Invariant: an open `CheckpointFolder` has a readable config, a fast tokenizer and weights that are
not pickled. What the tensors mean is for `Checkpoint`, or for a tool that knows the architecture.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.chat_template import template_text
from edgeproof.checkpoints.config import quantisation, settled
from edgeproof.checkpoints.json_object import read_object
from edgeproof.checkpoints.origin import recorded_base
from edgeproof.checkpoints.settings import tokenizer_settings
from edgeproof.checkpoints.special_tokens import GENERATION, Said
from edgeproof.checkpoints.tokenizer import (
    ADDED,
    LEFTOVERS,
    TOKENIZER,
    require_readable,
    settled_tokenizer,
    tokenizer_files,
)
from edgeproof.checkpoints.weight_files import INDEX, SINGLE, adapter_of
from edgeproof.errors import InputError
from edgeproof.families import assumed_ids
from edgeproof.files.safetensors import DtypeError
from edgeproof.quantised import QUANTISED_RECORD
from edgeproof.recovery import RECOVERY, Recovery, read_recovery
from export.checkpoint.merge_record import MERGE_RECORD
from export.checkpoint.model_card import MODEL_CARD
from export.checkpoint.safetensors_file import SafetensorsFile
from export.checkpoint.weight_files import open_weights

TEMPLATE_SUFFIX = ".jinja"
TIED_HEAD = "lm_head.weight"
SHOWN = 5  # added tokens in a note
# What transformers makes a tokenizer.json from, and what it needs for that.
CONVERTED = {
    "tokenizer.model": "sentencepiece protobuf",
    "vocab.json": None,
}
CONVERSION = (
    """python -c "from transformers import AutoTokenizer as A; A.from_pretrained('.')"""
    """.save_pretrained('.')\""""
)

log = logging.getLogger(__name__)


class CheckpointFolder:
    """An open folder. Use `open_folder`."""

    def __init__(
        self, path: Path, raw_config: dict[str, Any], files: list[SafetensorsFile]
    ) -> None:
        self.path = path
        self.raw_config = raw_config
        self._files = files
        self._json: dict[str, dict[str, Any]] = {}
        self._tokenizer_opens = False

    @property
    def recorded_base(self) -> str | None:
        """See `edgeproof.checkpoints.origin`."""
        return recorded_base(self.raw_config)

    @property
    def parameter_count(self) -> int:
        """Number of weights as the files' headers tell; a tied head is counted once."""
        tied = self.raw_config.get("tie_word_embeddings")
        return sum(
            math.prod(entry.shape)
            for file in self._files
            for name, entry in file.entries.items()
            if not (tied and name == TIED_HEAD)
        )

    @property
    def weight_map(self) -> dict[str, str]:
        """Tensor → shard as the index lists them; empty where it does not count."""
        if self._files[0].path.name == SINGLE:
            return {}
        return dict(self.json_file(INDEX)["weight_map"])

    @property
    def input_files(self) -> list[Path]:
        """Every file that an export may depend on, in a fixed order."""
        index = self.path / INDEX
        indexed = index.is_file() and self._files[0].path.name != SINGLE
        side = [self.path / "config.json", *self.tokenizer_files.values()]
        beside = [
            self.path / name for name in (MODEL_CARD, RECOVERY, MERGE_RECORD, QUANTISED_RECORD)
        ]
        extra = [path for path in beside if path.is_file()] + ([index] if indexed else [])
        return side + extra + [file.path for file in self._files]

    @cached_property
    def recovery(self) -> Recovery | None:
        """What a recovered checkpoint lies on; None for any other one.

        Raises:
            InputError: its recovery.json is malformed.
        """
        return read_recovery(self.path)

    @property
    def tokenizer_files(self) -> dict[str, Path]:
        """Tokenizer, template and generation files that exist, by name."""
        return tokenizer_files(self.path)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the folder says of special tokens: see `edgeproof.checkpoints.settings`.

        Raises:
            InputError: such a file is no JSON object.
        """
        return tokenizer_settings(self.json_file)

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """tokenizer.json as transformers has it after loading: see `edgeproof.checkpoints`.

        Raises:
            InputError: it cannot be understood.
        """
        document = self.json_file(TOKENIZER)
        found = settled_tokenizer(document, self.settings, self.path / TOKENIZER)
        for note in _notes(document, found):
            log.warning("%s: %s", self.path / TOKENIZER, note)
        return found

    @property
    def added(self) -> dict[str, int]:
        """The tokenizer's added tokens, text → id.

        Raises:
            InputError: as for `tokenizer`.
        """
        return {item["content"]: item["id"] for item in self.tokenizer.get(ADDED) or ()}

    @cached_property
    def said(self) -> Said:
        """What decides which tokens begin a text, end a reply and pad; a note where files disagree.

        Raises:
            InputError: as for `tokenizer`.
        """
        said = Said(
            self.path,
            self.json_file(GENERATION),
            self.raw_config,
            self.settings,
            self.added,
            assumed_ids(self.raw_config),
        )
        note = said.disagreement()
        if note:
            log.warning("%s: %s", self.path, note)
        return said

    def check_tokenizer(self) -> None:
        """Refuse a tokenizer that nothing could load. Opened once: it takes a quarter of a second.

        Raises:
            InputError: as `require_readable`.
        """
        if not self._tokenizer_opens:
            require_readable(self.path)
            self._tokenizer_opens = True

    def shipped(self, name: str) -> bytes:
        """What exports copy of a tokenizer file: its bytes, but no padding and no truncation.

        Raises:
            InputError: it is to be a JSON object and is none, or a template and no UTF-8 text.
        """
        path = self.path / name
        if path.suffix == TEMPLATE_SUFFIX:
            template_text(path)  # as transformers would read it
        if name != TOKENIZER or self.tokenizer == self.json_file(name):
            return path.read_bytes()
        return json.dumps(self.tokenizer, indent=2, ensure_ascii=False).encode()

    def json_file(self, name: str) -> dict[str, Any]:
        """A parsed JSON file of the checkpoint, or {} where it is absent. Parsed once.

        Raises:
            InputError: not a JSON object.
        """
        if name not in self._json:
            path = self.path / name
            self._json[name] = read_object(path) if path.exists() else {}
        return self._json[name]


def open_folder(path: Path) -> CheckpointFolder:
    """Open a checkpoint of any architecture. Reads headers only, no weights.

    Raises:
        InputError: no config.json, no fast tokenizer, no safetensors weights, or damaged ones.
    """
    raw = read_raw_config(path)
    require_tokenizer(path)
    return CheckpointFolder(path, plain_config(path, raw), open_plain_weights(path, raw))


def plain_config(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """The config of plain weights, with a note where it also told of others."""
    method = quantisation(raw)
    if method is not None:
        log.warning(
            "%s: quantization_config (%s) is a leftover, the weights are plain; it is dropped",
            path / "config.json",
            method,
        )
    return settled(raw)


def open_plain_weights(path: Path, raw: dict[str, Any]) -> list[SafetensorsFile]:
    """The files of weights that are stored as floats.

    Raises:
        InputError: as `open_weights`; what config.json calls quantised is so.
    """
    try:
        return open_weights(path)
    except DtypeError as error:
        method = quantisation(raw)
        if method is None:
            raise
        raise InputError(
            f"{path / 'config.json'}: the weights are quantised (quantization_config: {method}),"
            " which is not read; export the model that they were made from, or dequantise them in"
            f" transformers (model.dequantize()) and save that ({error})"
        ) from None


def read_raw_config(path: Path) -> dict[str, Any]:
    """The parsed config.json of a checkpoint folder.

    Raises:
        InputError: no such folder, no config.json, or not JSON.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint folder")
    config_path = path / "config.json"
    if not config_path.exists():
        raise InputError(adapter_of(path) or f"{config_path}: missing; {_where_else(path)}")
    return read_object(config_path)


def _where_else(path: Path) -> str:
    """What a folder without config.json is."""
    below = [item for item in path.glob("checkpoint-*") if (item / "config.json").is_file()]
    if below:
        newest = max(below, key=lambda item: (len(item.name), item.name))
        return f"this holds a trainer's checkpoints; the newest is {newest}"
    return "is this a Hugging Face checkpoint folder?"


def require_tokenizer(path: Path) -> None:
    """Refuse a folder without tokenizer.json.

    Raises:
        InputError: there is none; what else the folder has decides how one is made.
    """
    if (path / TOKENIZER).exists():
        return
    made_from = next((name for name in CONVERTED if (path / name).exists()), None)
    if made_from is None:
        raise InputError(
            f"{path / TOKENIZER}: missing; save the fast tokenizer beside the model"
            " (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )
    package = CONVERTED[made_from]
    raise InputError(
        f"{path / TOKENIZER}: missing; transformers makes it from {made_from}, in this folder:"
        f" {f'pip install {package}; ' if package else ''}{CONVERSION}"
    )


def _notes(document: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is not as the file has it."""
    if any(document.get(key) is not None for key in LEFTOVERS):
        yield "its padding and truncation are left out"
    before = {token["content"]: token["id"] for token in document.get(ADDED) or ()}
    other = [t for t in found.get(ADDED) or () if before.get(t["content"]) != t["id"]]
    if other:
        shown = ", ".join(f"{token['content']!r} is {token['id']}" for token in other[:SHOWN])
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        yield f"added tokens have the ids that they get in transformers: {shown}{more}"
