"""Write one GGUF file: choose each tensor's type, write the header, stream the tensors.

Invariant: sizes and offsets are known before the first byte, and memory does not grow with the
model: one block of rows is held at a time.
"""

from __future__ import annotations

from export.artifact import ArtifactWriter, ModelIdentity, Variant
from export.checkpoint import Checkpoint
from export.format import Advance
from export.gguf.container import ALIGNMENT, TensorInfo, encode_header
from export.gguf.content import prepare
from export.gguf.metadata import metadata_entries
from export.gguf.naming import file_name
from export.gguf.recipe import read_recipe
from export.gguf.tensors import bind


def write(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    variant: Variant,
    writer: ArtifactWriter,
    advance: Advance,
) -> None:
    """Write the variant's file `<Name>-<TYPE>.gguf`.

    Raises:
        InputError: a value does not fit its type, the model has no counterpart in llama.cpp, an
            override has no effect, or llama.cpp is needed and not installed.
    """
    recipe = read_recipe(variant)
    targets = bind(checkpoint)
    recipe.check(targets)
    metadata = metadata_entries(checkpoint, identity, recipe.file_type)
    with prepare(checkpoint, metadata, targets, recipe, writer, advance) as content:
        infos = [
            TensorInfo(item.target.name, item.target.shape, item.type.type_id, item.nbytes)
            for item in content.items
        ]
        with writer.open(file_name(identity.name, _label(variant, recipe.linear))) as file:
            file.write(encode_header(metadata, infos))
            for item in content.items:
                for chunk in content.chunks(item):
                    file.write(chunk)
                file.pad(ALIGNMENT)
                writer.stats.add(
                    item.type.name,
                    item.target.sources[0].size,
                    item.nbytes,
                    kind=item.kind,
                    fallback=item.fallback,
                )


def _label(variant: Variant, linear: str) -> str:
    """The type in llama.cpp's spelling, and the overrides as the variant's name has them."""
    return linear + variant.name[len(linear) :]
