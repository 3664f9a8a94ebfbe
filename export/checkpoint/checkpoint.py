"""A checkpoint in Hugging Face layout: config, tokenizer files and lazy, validated tensors.

Invariant: an open `Checkpoint` has exactly the tensors of its family's parameter table, with the
table's shapes. Values are checked for NaN and infinity while they are streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Parameter, read_config
from edgeproof.families.roles import Role
from export.checkpoint.folder import (
    CheckpointFolder,
    open_plain_weights,
    plain_config,
    read_raw_config,
    require_tokenizer,
)
from export.checkpoint.fused import holders, split
from export.checkpoint.known_names import DERIVED_BUFFERS, rename
from export.checkpoint.safetensors_file import SafetensorsFile
from export.targets import Target

# Large enough for NumPy's speed; 4 MiB as float32, which what reads them after the check for NaN
# still finds in the processor's cache.
BLOCK_ELEMENTS = 1 << 20
UNTIED = "; if it shares the embedding's, set tie_word_embeddings to true in config.json"


class Checkpoint(CheckpointFolder):
    """An open checkpoint. Use `open_checkpoint`."""

    def __init__(
        self,
        path: Path,
        raw_config: dict[str, Any],
        config: DecoderConfig,
        parameters: tuple[Parameter, ...],
        files: list[SafetensorsFile],
    ) -> None:
        super().__init__(path, raw_config, files)
        self.config = config
        self.parameters = parameters
        self._where = {name: file for file in files for name in file.entries}

    @property
    def parameter_count(self) -> int:
        """Number of weights; a tied head is counted once."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def weight_map(self) -> dict[str, str]:
        """See `CheckpointFolder`; of a tensor that holds several, its parts."""
        parts = holders(self.parameters)
        return {
            part: file
            for name, file in super().weight_map.items()
            for part in ([item.name for item in parts[name]] if name in parts else [name])
        }

    @property
    def stored_order(self) -> list[str]:
        """Tensor names in the order in which the files' headers list them."""
        known = {parameter.name for parameter in self.parameters}
        return [name for file in self._files for name in file.entries if name in known]

    def file_of(self, name: str) -> Path:
        """The safetensors file that holds the tensor."""
        return self._where[name].path

    def stored_dtype(self, name: str) -> np.dtype[Any]:
        """The dtype in which the file holds the tensor: float32, float16 or bfloat16."""
        return self._where[name].entries[name].dtype

    def blocks(self, target: Target) -> Iterator[np.ndarray]:
        """Stream a target's values in the stored dtype: blocks of rows, in order, all finite.

        Peak memory is one block for a plain target and one tensor for a transformed one; the
        source pages are released behind the reader.

        Raises:
            InputError: a value is NaN or infinite.
        """
        if target.transform is None:
            yield from self._row_blocks(target.sources[0].name)
            return
        arrays = [self._where[source.name].tensor(source.name) for source in target.sources]
        for source, array in zip(target.sources, arrays, strict=True):
            self._check_finite(source.name, array, 0)
        result = target.transform(arrays)
        if result.shape != target.shape:
            raise InputError(f"{target.name}: shape {result.shape}, expected {target.shape}")
        yield result
        for source in target.sources:
            self._where[source.name].release(source.name)

    def first_rows(self, name: str, count: int) -> np.ndarray:
        """At most so many rows of a tensor in its stored dtype, as they are: perhaps not finite."""
        return np.asarray(self._where[name].tensor(name)[:count])

    def _row_blocks(self, name: str) -> Iterator[np.ndarray]:
        file = self._where[name]
        array = file.tensor(name)
        row_elements = max(1, array.size // max(1, array.shape[0]))
        step = max(1, BLOCK_ELEMENTS // row_elements)
        for start in range(0, array.shape[0], step):
            block = array[start : start + step]
            self._check_finite(name, block, start)
            yield block
            row_bytes = row_elements * array.itemsize
            file.release(name, start * row_bytes, (start + len(block)) * row_bytes)

    def _check_finite(self, name: str, array: np.ndarray, first_row: int) -> None:
        finite = _finite(array)
        if finite.all():
            return
        where = np.argwhere(~finite)[0]
        where[0] += first_row
        raise InputError(
            f"{self._where[name].path}: tensor {name} has a NaN or infinite value at"
            f" {where.tolist()}; the checkpoint is damaged"
        )


def open_checkpoint(path: Path) -> Checkpoint:
    """Open and validate a checkpoint folder. Reads headers only, no weights.

    Raises:
        InputError: a missing or malformed file, an unknown architecture, a missing, unexpected or
            misshapen tensor, pickled weights, no tokenizer.
    """
    raw = read_raw_config(path)
    try:
        config, parameters = read_config(raw)
    except InputError as error:
        raise InputError(f"{path / 'config.json'}: {error}") from None
    require_tokenizer(path)
    files = open_plain_weights(path, raw)
    rename(path, files, parameters)
    split(path, files, parameters)
    _check_tensors(path, config, parameters, files)
    checkpoint = Checkpoint(path, plain_config(path, raw), config, parameters, files)
    checkpoint.json_file("tokenizer.json")
    return checkpoint


def _check_tensors(
    path: Path,
    config: DecoderConfig,
    parameters: tuple[Parameter, ...],
    files: list[SafetensorsFile],
) -> None:
    found: dict[str, SafetensorsFile] = {}
    for file in files:
        for name in file.entries:
            if name in found:
                raise InputError(f"{file.path}: tensor {name} is also in {found[name].path.name}")
            found[name] = file
    holders = dict(found)
    for parameter in parameters:
        holder = found.pop(parameter.name, None)
        if holder is None:
            hint = UNTIED if parameter.role is Role.HEAD else ""
            raise InputError(f"{path}: tensor {parameter.name} is missing from the weights{hint}")
        shape = holder.entries[parameter.name].shape
        if shape != parameter.shape:
            raise InputError(
                f"{holder.path}: tensor {parameter.name} has shape {list(shape)},"
                f" config.json asks for {list(parameter.shape)}"
            )
    if config.tied and "lm_head.weight" in found:
        _check_tied_copy(found.pop("lm_head.weight"), holders[parameters[0].name], parameters)
    for name, file in found.items():
        if not DERIVED_BUFFERS.fullmatch(name):
            raise InputError(f"{file.path}: unexpected tensor {name}; config.json implies none")


def _check_tied_copy(
    file: SafetensorsFile, holder: SafetensorsFile, parameters: tuple[Parameter, ...]
) -> None:
    """A stored head is the embedding, value by value; the dtype and the file may be others."""
    embedding = parameters[0].name
    head, table = file.tensor("lm_head.weight"), holder.tensor(embedding)
    step = max(1, BLOCK_ELEMENTS // max(1, head.shape[-1] if head.ndim else 1))
    same = head.shape == table.shape and all(
        np.array_equal(head[start : start + step], table[start : start + step])
        for start in range(0, len(head), step)
    )
    file.release("lm_head.weight")
    holder.release(embedding)
    if not same:
        raise InputError(
            f"{file.path}: tensor lm_head.weight differs from {embedding}, but config.json says"
            " tie_word_embeddings; set it to false"
        )


def _finite(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float32:
        return np.asarray(np.isfinite(array))
    exponent = np.uint16(0x7C00 if array.dtype == np.float16 else 0x7F80)
    return np.asarray((array.view(np.uint16) & exponent) != exponent)
