"""Write one GGUF file: choose each tensor's type, write the header, stream the tensors.

Invariant: sizes and offsets are known before the first byte, and memory does not grow with the
model: one block of rows is held at a time.
"""

from __future__ import annotations

from dataclasses import replace

from edgeproof.artifact import ArtifactWriter, HashedFile, ModelIdentity, Variant
from edgeproof.families.context import in_llama_cpp
from export.checkpoint import Checkpoint, recovered_grids
from export.context import within_context
from export.format import Advance
from export.gguf.assignment import Item, assign, main_type
from export.gguf.container import ALIGNMENT, TensorInfo, encode_header
from export.gguf.content import Content, prepare
from export.gguf.imatrix import imatrix_entries
from export.gguf.metadata import metadata_entries, naming_texts
from export.gguf.naming import file_stem
from export.gguf.recipe import RECOVERED, Recipe
from export.gguf.splits import plan_splits, split_metadata
from export.gguf.tensors import bind
from export.rounding import rounder_of
from export.rounding.imatrix import uniform
from export.targets import Target


def write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant[Recipe],
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    """Write the variant's file, or its splits, `<Base>-<Size>-<Finetune>-<Version>-<TYPE>.gguf`.

    Raises:
        InputError: a value does not fit its type, the model has no counterpart in llama.cpp, an
            override has no effect, the importance matrix is another model's, or llama.cpp is needed
            and not installed.
    """
    recipe = variant.recipe
    checkpoint = within_context(checkpoint, in_llama_cpp(checkpoint.config))
    targets = bind(checkpoint)
    recipe.check(targets)
    rounder = rounder_of(recipe.rounding, checkpoint.parameters)
    if recipe.wish is not None and writer.dry:
        rounder = replace(rounder, imatrix=uniform(checkpoint.parameters))
    named = _named(checkpoint, targets, recipe)
    metadata = metadata_entries(checkpoint, identity, named.file_type)
    if rounder.imatrix is not None:
        metadata += imatrix_entries(rounder.imatrix)
    label = "-".join((named.label, *(() if named == recipe else (RECOVERED.lower(),))))
    stem = file_stem(naming_texts(metadata), label)
    with prepare(checkpoint, metadata, targets, recipe, rounder, writer, advance) as content:
        splits = plan_splits(stem, [item.nbytes for item in content.items], variant)
        for number, split in enumerate(splits):
            items = content.items[split.tensors.start : split.tensors.stop]
            infos = [
                TensorInfo(item.target.name, item.target.shape, item.type.type_id, item.nbytes)
                for item in items
            ]
            with writer.open(split.name) as file:
                file.write(encode_header(split_metadata(metadata, number, splits), infos))
                for item in items:
                    _stream(content, item, file)
                    _count(writer, item)


def _named(checkpoint: Checkpoint, targets: list[Target], recipe: Recipe) -> Recipe:
    """What the file calls itself: a recovered one after the type of most of its weights."""
    if recipe.linear != RECOVERED:
        return recipe
    items = assign(targets, recipe, recovered_grids(checkpoint), tied=checkpoint.config.tied)
    main = main_type(items)
    return Recipe(main, main)


def _count(writer: ArtifactWriter, item: Item) -> None:
    """A tensor that follows from the config is no weight."""
    if item.target.sources:
        size = sum(source.size for source in item.target.sources)
        writer.stats.add(item.type.name, size, item.nbytes, kind=item.kind, fallback=item.fallback)


def _stream(content: Content, item: Item, file: HashedFile) -> None:
    with file.section(item.target.name):
        for chunk in content.chunks(item):
            file.write(chunk)
    file.pad(ALIGNMENT)
