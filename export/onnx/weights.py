"""Turn checkpoint tensors into the arrays that the graph stores, and lay them out in files.

Invariant: every array is produced while it is written; at most one tensor (for a plain target, one
block of rows) is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeproof.artifact import ArtifactWriter, HashedFile
from edgeproof.families import Role
from export.checkpoint import Checkpoint
from export.format import Advance
from export.onnx.graph import Content, Count, Placement, StoredTensor
from export.rounding.cast import cast
from export.targets import Target

# The ONNX specification asks for page-aligned offsets so that a runtime can map the file.
ALIGNMENT = 4096
# Browsers and protobuf tools stop near 2 GiB; transformers.js numbers the files that follow.
MAX_FILE_BYTES = 2_000_000_000
# Rows cast and transposed at once, so that they are still in the cache when they are copied.
STRIP = 64

# Matrices that the manifest does not call "linear".
MATRICES_OF_THEIR_OWN = frozenset({Role.EMBEDDING, Role.HEAD})

Blocks = Callable[[], Iterator[np.ndarray]]


def plain(target: Target, dtype: np.dtype[Any]) -> StoredTensor:
    """The target's values as they are, cast; streamed in blocks of rows."""

    def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        for block in checkpoint.blocks(target):
            yield cast(block, dtype, target.name)

    return StoredTensor(target.name, target.shape, dtype, content, _float_count(target, dtype))


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

    return StoredTensor(target.name, (inputs, outputs), dtype, content, _float_count(target, dtype))


def _float_count(target: Target, dtype: np.dtype[Any]) -> Count:
    return Count(target, dtype.name, int(np.prod(target.shape)) * dtype.itemsize)


def table(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Blocks) -> StoredTensor:
    """A derived table that is not a weight; `blocks()` yields its blocks of rows."""

    def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        for block in blocks():
            yield cast(block, dtype, name)

    return StoredTensor(name, shape, dtype, content)


@dataclass
class Parts:
    """Several stored tensors of one weight: rounded once, while the first of them is written.

    `produce` yields, block by block, an array for each of them. The others are small (scales, zero
    points), wait for their turn and are then forgotten; whichever is asked for without the first is
    produced anew.
    """

    produce: Callable[[Checkpoint], Iterator[tuple[np.ndarray, ...]]]
    _waiting: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def first(self, checkpoint: Checkpoint) -> Iterator[np.ndarray]:
        """Blocks of the first tensor."""
        self._waiting = {}
        for first, *others in self.produce(checkpoint):
            for index, other in enumerate(others, start=1):
                self._waiting.setdefault(index, []).append(other)
            yield first

    def other(self, index: int) -> Content:
        """Blocks of the tensor `index` ≥ 1."""

        def content(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
            waiting = self._waiting.pop(index, None)
            yield from waiting or (parts[index] for parts in self.produce(checkpoint))

        return content


def place(
    tensors: Sequence[StoredTensor], file: str, limit: int = MAX_FILE_BYTES
) -> list[Placement]:
    """Lay tensors out in order in `file`, then `file_1`, `file_2` …, none larger than `limit`.

    A tensor that is larger than `limit` gets a file of its own.
    """
    placements: list[Placement] = []
    placed: dict[str | None, Placement] = {}
    name, chunk, position = file, 0, 0
    for tensor in tensors:
        if tensor.same_bytes_as is not None:
            where = placed[tensor.same_bytes_as]
            placements.append(Placement(tensor, where.file, where.offset))
            continue
        offset = -(-position // ALIGNMENT) * ALIGNMENT
        if position and offset + tensor.nbytes > limit:
            chunk += 1
            name, offset = f"{file}_{chunk}", 0
        placements.append(Placement(tensor, name, offset))
        placed[tensor.name] = placements[-1]
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
        if tensor.count is not None:
            _record(tensor.count, writer, advance)

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
                if placement.tensor.same_bytes_as is None:
                    out.pad(ALIGNMENT)
                    write(placement.tensor, out)
    return len(files)


def _record(count: Count, writer: ArtifactWriter, advance: Advance) -> None:
    elements = sum(source.size for source in count.weight.sources)
    role = count.weight.role
    kind = role.value if role in MATRICES_OF_THEIR_OWN else "linear"
    kind = "norm" if len(count.weight.shape) == 1 else kind
    writer.stats.add(count.type_name, elements, count.nbytes, kind=kind)
    advance(elements)
