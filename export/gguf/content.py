"""Where the bytes of a GGUF file's tensors come from: our own types, or llama.cpp's quantiser.

llama.cpp is fed with a temporary float32 file: that is exact for every checkpoint, while float16
would round float32 and bfloat16 values once more, and overflow. The types it will choose are asked
for beforehand, on files that are headers only, so that sizes, labels and refusals come first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeproof.artifact import ArtifactWriter
from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.format import Advance
from export.gguf.assignment import Item, assign
from export.gguf.container import ALIGNMENT, MetadataEntry, TensorInfo, encode_header
from export.gguf.llama_quantize import planned_types, quantise
from export.gguf.recipe import Recipe
from export.gguf.storage import TYPES
from export.rounding import Rounder
from export.rounding.cast import FLOAT32, cast
from export.sources.gguf_container import GgufFile
from export.targets import Target, streamable

K_BLOCK = 256  # rows of a multiple of this get what a mixture asks for
COPY_BYTES = 4 << 20
F32 = TYPES["F32"]


@dataclass(frozen=True)
class Content:
    """The tensors of a file in order, and the bytes of each, without padding."""

    items: list[Item]
    chunks: Callable[[Item], Iterator[memoryview]]


@contextlib.contextmanager
def prepare(
    checkpoint: Checkpoint,
    metadata: Sequence[MetadataEntry],
    targets: Sequence[Target],
    recipe: Recipe,
    rounder: Rounder,
    writer: ArtifactWriter,
    advance: Advance,
) -> Iterator[Content]:
    """Decide the types; quantise where llama.cpp has to (not for a dry run).

    Raises:
        InputError: a value does not fit its type; llama.cpp is missing or fails.
    """
    if recipe.direct:
        items = assign(targets, recipe, _grids(checkpoint), tied=checkpoint.config.tied)
        yield Content(items, lambda item: _encoded(checkpoint, item, rounder, advance))
        return
    importance = rounder.imatrix.values if rounder.imatrix else {}
    with writer.scratch() as folder:
        items = _ask_llama_cpp(folder, metadata, targets, recipe, importance)
        if writer.dry:
            yield Content(items, lambda item: _sized(checkpoint, item, advance))
            return
        source, result = folder / "f32.gguf", folder / "quantised.gguf"
        _write_f32(source, checkpoint, metadata, targets, advance)
        quantise(source, result, recipe, importance)
        source.unlink()
        file = GgufFile(result)
        yield Content(items, lambda item: _copied(file, item))


def _grids(checkpoint: Checkpoint) -> Mapping[str, str]:
    return checkpoint.recovery.grids if checkpoint.recovery else {}


def _blocks(checkpoint: Checkpoint, target: Target) -> Iterator[np.ndarray]:
    """Its values in blocks of rows; what holds several is never whole in memory."""
    for part in streamable(target):
        yield from checkpoint.blocks(part)


def _encoded(
    checkpoint: Checkpoint, item: Item, rounder: Rounder, advance: Advance
) -> Iterator[memoryview]:
    """A tensor's bytes in a type of ours, block of rows by block of rows."""
    storage = TYPES[item.type.name]
    for block in _blocks(checkpoint, item.target):
        yield storage.encode(block, item.target, rounder).data
        advance(block.size)


def _ask_llama_cpp(
    folder: Path,
    metadata: Sequence[MetadataEntry],
    targets: Sequence[Target],
    recipe: Recipe,
    importance: Mapping[str, np.ndarray],
) -> list[Item]:
    """The types that llama.cpp gives, and those that it would give if every row divided."""
    whole = [
        replace(t, shape=(*t.shape[:-1], t.shape[-1] + -t.shape[-1] % K_BLOCK)) for t in targets
    ]
    given, asked = (
        planned_types(
            _write_header(folder / "plan.gguf", metadata, shapes),
            recipe,
            {
                t.name: np.resize(importance[t.name], t.shape[-1])
                for t in shapes
                if t.name in importance
            },
        )
        for shapes in (targets, whole)
    )
    return [Item(target, given[target.name], asked[target.name]) for target in targets]


def _write_header(path: Path, metadata: Sequence[MetadataEntry], targets: Sequence[Target]) -> Path:
    """A float32 GGUF file whose tensors are a hole: it takes no space on disk."""
    infos = _float_infos(targets)
    header = encode_header(metadata, infos)
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + sum(t.nbytes + -t.nbytes % ALIGNMENT for t in infos))
    return path


def _write_f32(
    path: Path,
    checkpoint: Checkpoint,
    metadata: Sequence[MetadataEntry],
    targets: Sequence[Target],
    advance: Advance,
) -> None:
    with path.open("wb") as file:
        file.write(encode_header(metadata, _float_infos(targets)))
        for target in targets:
            for block in _blocks(checkpoint, target):
                file.write(cast(block, FLOAT32, target.origin).data)
                advance(block.size)
            file.write(bytes(-file.tell() % ALIGNMENT))


def _float_infos(targets: Sequence[Target]) -> list[TensorInfo]:
    return [TensorInfo(t.name, t.shape, F32.type_id, F32.nbytes(t.shape)) for t in targets]


def _sized(checkpoint: Checkpoint, item: Item, advance: Advance) -> Iterator[memoryview]:
    """As many bytes as the tensor will have, after its values were read and found finite."""
    for block in _blocks(checkpoint, item.target):
        advance(block.size)
    yield memoryview(bytes(item.nbytes))


def _copied(file: GgufFile, item: Item) -> Iterator[memoryview]:
    tensor = file.tensors[item.target.name]
    if (tensor.storage.name, tensor.shape) != (item.type.name, item.target.shape):
        raise InputError(
            f"llama.cpp stored {tensor.name} as {tensor.storage.name}, not as {item.type.name} as"
            " it had announced; install 'edgeproof[llamacpp]' again"
        )
    data: np.ndarray = file.raw_rows(tensor).reshape(-1)
    for start in range(0, data.size, COPY_BYTES):
        yield data[start : start + COPY_BYTES].data
    file.release(tensor)
