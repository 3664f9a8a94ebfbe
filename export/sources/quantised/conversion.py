"""A quantised checkpoint → what its plain one holds, streamed.

Weights that are stored as codes become float32: the products as the files state them, not rounded
to the 16 bits in which a library may compute with them. All other tensors keep their type and
bytes. Memory is that of one block of rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.checkpoints.config import QUANTISED, quantisation
from edgeproof.checkpoints.json_object import read_object
from edgeproof.errors import InputError
from edgeproof.families import Parameter, read_config
from edgeproof.files.safetensors import DtypeError
from export.checkpoint.fused import holders
from export.checkpoint.known_names import DERIVED_BUFFERS, rename
from export.checkpoint.safetensors_writer import PlannedTensor
from export.checkpoint.weight_files import open_weights
from export.sources.quantised.reader import Matrix, Reading
from export.sources.quantised.registry import FIXES, READERS, USUAL
from export.sources.quantised.tensors import FLOATS, STORED, Tensors

FLOAT32 = np.dtype(np.float32)
# As float32 4 MiB; a few times that with codes and scales.
BLOCK_ELEMENTS = 1 << 20
TIED_HEAD = "lm_head.weight"
DTYPE_KEYS = ("dtype", "torch_dtype")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """The plain checkpoint: its config.json, and its tensors.

    `kept` are names of tensors that stay as they are.
    """

    method: str
    config: dict[str, Any]
    tensors: Tensors
    reading: Reading
    kept: tuple[str, ...]

    @property
    def planned(self) -> list[PlannedTensor]:
        """The tensors as they are to be written."""
        kept = [
            PlannedTensor(name, self.tensors.dtype(name), self.tensors.shape(name))
            for name in self.kept
        ]
        read = [
            PlannedTensor(name, FLOAT32, matrix.shape)
            for name, matrix in self.reading.matrices.items()
        ]
        return kept + read

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A tensor's values in its planned dtype, in blocks of rows.

        Raises:
            InputError: a value is NaN or infinite.
        """
        matrix = self.reading.matrices.get(name)
        if matrix is None:
            yield from self._kept(name)
            return
        for start, block in _streamed(matrix):
            if not np.isfinite(block).all():
                row, column = np.argwhere(~np.isfinite(block))[0].tolist()
                raise self.tensors.wrong(
                    matrix.parts[0], f"gives a NaN or infinite value at {[start + row, column]}"
                )
            yield block
            self.tensors.release(matrix.parts)

    def _kept(self, name: str) -> Iterator[np.ndarray]:
        array = self.tensors.array(name)
        step = max(1, BLOCK_ELEMENTS // max(1, array[:1].size))
        for start in range(0, len(array) if array.ndim else 1, step):
            block = array[start : start + step] if array.ndim else array
            if not np.isfinite(block).all():
                raise self.tensors.wrong(name, "has a NaN or infinite value; the file is damaged")
            yield block
        self.tensors.release([name])


def _streamed(matrix: Matrix) -> Iterator[tuple[int, np.ndarray]]:
    out, inputs = matrix.shape
    step = max(1, BLOCK_ELEMENTS // inputs // matrix.step) * matrix.step
    for start in range(0, out, step):
        yield start, matrix.rows(start, min(start + step, out))


def plan_conversion(folder: Path) -> Conversion | None:
    """How a folder's quantised weights become floats; None where they are stored as floats.

    Reads headers and scales.

    Raises:
        InputError: no reader reads them, or the files are not what the method stores.
    """
    raw = read_object(folder / "config.json")
    method = quantisation(raw)
    if method is None:
        return None
    reader = READERS.get(method)
    try:
        files = open_weights(folder, STORED)
    except DtypeError as error:
        raise InputError(f"{_unread(folder, method)} ({error})") from None
    tensors = Tensors(files)
    if all(tensors.dtype(name) in FLOATS for name in tensors) and not _scaled(tensors):
        return None
    if reader is None:
        raise InputError(_unread(folder, method))
    try:
        _, parameters = read_config(raw)
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None
    rename(folder, files, parameters)
    tensors = Tensors(files)
    stored = _stored(parameters)
    shapes = {name: (shape[0], shape[1]) for name, shape in stored.items() if len(shape) == 2}
    try:
        reading = reader.read(raw[QUANTISED], tensors, shapes)
    except InputError as error:
        at = f"{folder}/" if str(error).startswith("config.json") else ""
        raise InputError(f"{at}{error}") from None
    kept = _kept(folder, tensors, reading, stored)
    return Conversion(method, _config(raw), tensors, reading, kept)


def _scaled(tensors: Tensors) -> bool:
    """Whether floats go with scales: stored as floats, but not the weights yet."""
    return any(name.endswith(".weight") and f"{name}_scale" in tensors for name in tensors)


def _unread(folder: Path, method: str) -> str:
    return (
        f"{folder / 'config.json'}: the weights are quantised (quantization_config: {method}),"
        f" which is not read; {FIXES.get(method, USUAL)}"
    )


def _stored(parameters: Sequence[Parameter]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in files: some hold the rows of several parameters."""
    fused = {
        name: (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        for name, parts in holders(parameters).items()
    }
    return {item.name: item.shape for item in parameters if item.within is None} | fused


def _kept(
    folder: Path, tensors: Tensors, reading: Reading, stored: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Names of the tensors that stay as they are; refuses what is missing or means nothing."""
    used = {part for matrix in reading.matrices.values() for part in matrix.parts}
    for name, shape in stored.items():
        if name in reading.matrices:
            continue
        if name not in tensors:
            raise InputError(f"{folder}: tensor {name} is missing, as floats and as {reading.form}")
        tensors.require(name, name, FLOATS, shape)
    kept, zeros = [], []
    for name in tensors:
        if name in used or name in reading.unused:
            continue
        if name in stored or name == TIED_HEAD or DERIVED_BUFFERS.fullmatch(name):
            tensors.require(name, name, FLOATS)
            kept.append(name)
        elif name.endswith(".bias") and not np.asarray(tensors.array(name)).any():
            zeros.append(name)
        else:
            raise tensors.wrong(name, f"is unexpected: config.json and {reading.form} imply none")
    if zeros:
        log.warning(
            "%s: %d biases of zeros, which config.json does not have, are left out",
            folder,
            len(zeros),
        )
    return tuple(kept)


def _config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of the plain checkpoint: its largest tensors are float32."""
    found = {key: value for key, value in raw.items() if key != QUANTISED}
    return {**found, **{key: "float32" for key in DTYPE_KEYS if key in found}}
