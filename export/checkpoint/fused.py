"""Tensors of a file that hold the rows of several parameters: each is an entry of its own here.

Rows of a safetensors file lie one after the other, so a range of them is a tensor like any other:
it streams, and nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.families import Parameter
from export.checkpoint.safetensors_file import SafetensorsFile, TensorEntry


def holders(parameters: Sequence[Parameter]) -> dict[str, list[Parameter]]:
    """The tensors that hold several, with what they hold in order."""
    found: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        if parameter.within is not None:
            found.setdefault(parameter.within, []).append(parameter)
    return found


def split(folder: Path, files: Sequence[SafetensorsFile], parameters: Sequence[Parameter]) -> None:
    """Replace the entry of each such tensor by those of its parts.

    Raises:
        InputError: it is missing, has another shape, or a part is a tensor of its own too.
    """
    parts = holders(parameters)
    names = {name for file in files for name in file.entries}
    for name, held in parts.items():
        if name not in names:
            raise InputError(f"{folder}: tensor {name} is missing from the weights")
        for part in held:
            if part.name in names:
                raise InputError(f"{folder}: unexpected tensor {part.name} beside {name}")
    for file in files:
        file.entries = {
            part: cut
            for name, entry in file.entries.items()
            for part, cut in (
                _parts(file.path, name, entry, parts[name]) if name in parts else [(name, entry)]
            )
        }


def _parts(
    path: Path, name: str, entry: TensorEntry, parts: Sequence[Parameter]
) -> Iterator[tuple[str, TensorEntry]]:
    rows, columns = sum(part.shape[0] for part in parts), parts[0].shape[1]
    if entry.shape != (rows, columns):
        raise InputError(
            f"{path}: tensor {name} has shape {list(entry.shape)}, config.json asks for"
            f" {[rows, columns]}"
        )
    offset = entry.offset
    for part in parts:
        size = math.prod(part.shape) * entry.dtype.itemsize
        yield part.name, replace(entry, shape=part.shape, offset=offset, nbytes=size)
        offset += size
