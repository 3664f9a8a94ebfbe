"""Write one GGUF file: choose each tensor's type, write the header, stream the tensors.

Invariant: sizes and offsets are known before the first byte, and memory does not grow with the
model: one block of rows is held at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from export.architecture import Role, Target
from export.artifact import ArtifactWriter, HashedFile, ModelIdentity, Variant
from export.checkpoint import Checkpoint
from export.format import Advance
from export.gguf.container import ALIGNMENT, TensorInfo, encode_header
from export.gguf.metadata import metadata_entries, naming_texts
from export.gguf.naming import file_stem
from export.gguf.splits import plan_splits, split_metadata
from export.gguf.storage import FALLBACK, TYPES, StorageType
from export.gguf.tensors import bind

# Roles that are not "linear" in a variant's storage.
CLASSES = {
    Role.EMBEDDING: "embedding",
    Role.HEAD: "head",
    Role.INPUT_NORM: "norm",
    Role.POST_NORM: "norm",
    Role.FINAL_NORM: "norm",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A tensor, the type it is stored in, and whether that is not the type asked for."""

    target: Target
    type: StorageType
    fallback: bool

    @property
    def nbytes(self) -> int:
        """Stored bytes, without padding."""
        return self.type.nbytes(self.target.shape)


def write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant,
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    """Write the variant's file, or its splits, `<Base>-<Size>-<Finetune>-<Version>-<TYPE>.gguf`.

    Raises:
        InputError: a value does not fit its type, or the model has no counterpart in llama.cpp.
    """
    items = plan(bind(checkpoint), variant, tied=checkpoint.config.tied)
    _report_fallbacks(items, variant)
    linear = TYPES[dict(variant.storage)["linear"]]
    metadata = metadata_entries(checkpoint, identity, linear.file_type)
    stem = file_stem(naming_texts(metadata), linear.name)
    splits = plan_splits(stem, [item.nbytes for item in items], variant)
    for number, split in enumerate(splits):
        part = items[split.tensors.start : split.tensors.stop]
        infos = [TensorInfo(i.target.name, i.target.shape, i.type.type_id, i.nbytes) for i in part]
        with writer.open(split.name) as file:
            file.write(encode_header(split_metadata(metadata, number, splits), infos))
            for item in part:
                _stream(checkpoint, item, file, advance)
                size = item.target.sources[0].size
                writer.stats.add(item.type.name, size, item.nbytes, fallback=item.fallback)


def _stream(checkpoint: Checkpoint, item: Item, file: HashedFile, advance: Advance) -> None:
    name = item.target.sources[0].name
    with file.section(item.target.name):
        for block in checkpoint.blocks(item.target):
            file.write(item.type.encode(block, name).data)
            advance(block.size)
    file.pad(ALIGNMENT)


def plan(targets: Sequence[Target], variant: Variant, *, tied: bool) -> list[Item]:
    """Give every tensor its type, as llama.cpp does.

    A tied embedding is also the output matrix and gets the head's type.
    """
    storage = dict(variant.storage)
    if tied:
        storage["embedding"] = storage["head"]
    wanted = [(target, TYPES[storage[CLASSES.get(target.role, "linear")]]) for target in targets]
    return [
        Item(target, asked if asked.fits(target.shape) else FALLBACK, not asked.fits(target.shape))
        for target, asked in wanted
    ]


def _report_fallbacks(items: Sequence[Item], variant: Variant) -> None:
    names = [item.target.name for item in items if item.fallback]
    if names:
        log.warning(
            "%s: rows of %d tensors do not divide into its blocks; stored as %s: %s",
            variant.name,
            len(names),
            FALLBACK.name,
            ", ".join(names),
        )
