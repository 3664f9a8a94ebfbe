"""Turn checkpoint tensors into the arrays that the graph stores, and lay them out in files.

Invariant: every array is produced while it is written; at most one tensor (for a plain target, one
block of rows) is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from export.architecture import Target
from export.artifact import ArtifactWriter, HashedFile
from export.checkpoint import Checkpoint
from export.format import Advance
from export.onnx.graph import Placement, StoredTensor
from export.quantization.cast import cast

# The ONNX specification asks for page-aligned offsets so that a runtime can map the file.
ALIGNMENT = 4096
# Browsers and protobuf tools stop near 2 GiB; transformers.js numbers the files that follow.
MAX_FILE_BYTES = 2_000_000_000
# Rows cast and transposed at once, so that they are still in the cache when they are copied.
STRIP = 64

Blocks = Callable[[], Iterator[np.ndarray]]


def plain(target: Target, dtype: np.dtype[Any]) -> StoredTensor:
    """The target's values as they are, cast; streamed in blocks of rows."""

    def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        for block in checkpoint.blocks(target):
            yield cast(block, dtype, target.name)

    return StoredTensor(target.name, target.shape, dtype, content, target)


def transposed(target: Target, dtype: np.dtype[Any]) -> StoredTensor:
    """A linear weight [out, in] as [in, out], the layout of MatMul's right operand, cast."""
    outputs, inputs = target.shape

    def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        result = np.empty((inputs, outputs), dtype)
        row = 0
        for block in checkpoint.blocks(target):
            for start in range(0, len(block), STRIP):
                strip = cast(block[start : start + STRIP], dtype, target.name)
                result[:, row : row + len(strip)] = strip.T
                row += len(strip)
        yield result

    return StoredTensor(target.name, (inputs, outputs), dtype, content, target)


def table(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Blocks) -> StoredTensor:
    """A derived table that is not a weight; `blocks()` yields its blocks of rows."""

    def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        for block in blocks():
            yield cast(block, dtype, name)

    return StoredTensor(name, shape, dtype, content)


def place(
    tensors: Sequence[StoredTensor], file: str, limit: int = MAX_FILE_BYTES
) -> list[Placement]:
    """Lay tensors out in order in `file`, then `file_1`, `file_2` …, none larger than `limit`.

    A tensor that is larger than `limit` gets a file of its own.
    """
    placements: list[Placement] = []
    name, chunk, position = file, 0, 0
    for tensor in tensors:
        offset = -(-position // ALIGNMENT) * ALIGNMENT
        if position and offset + tensor.nbytes > limit:
            chunk += 1
            name, offset = f"{file}_{chunk}", 0
        placements.append(Placement(tensor, name, offset))
        position = offset + tensor.nbytes
    return placements


def write_weights(
    placements: Sequence[Placement],
    folder: str,
    checkpoint: Checkpoint,
    writer: ArtifactWriter,
    advance: Advance,
) -> int:
    """Stream the tensors into their data files below `folder`; returns the number of files."""

    def write(tensor: StoredTensor, out: HashedFile) -> None:
        for array in tensor.content(checkpoint):
            out.write(array.data)
        if tensor.weight is not None:
            writer.stats.add(tensor.dtype.name, tensor.size, tensor.nbytes)
            advance(sum(source.size for source in tensor.weight.sources))

    return write_placed(placements, folder, writer, write)


def write_placed(
    placements: Sequence[Placement],
    folder: str,
    writer: ArtifactWriter,
    write: Callable[[StoredTensor, HashedFile], None],
) -> int:
    """Have `write` append each tensor where it is placed; returns the number of files."""
    files = list(dict.fromkeys(placement.file for placement in placements))
    for name in files:
        with writer.open(f"{folder}{name}") as out:
            for placement in (item for item in placements if item.file == name):
                out.pad(ALIGNMENT)
                write(placement.tensor, out)
    return len(files)
