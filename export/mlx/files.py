"""model.safetensors, or several of them with an index.

Source: mlx_lm/utils.py (`save_model`: names, the most bytes of a file, the index).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.checkpoint.safetensors_writer import PlannedTensor

MOST_BYTES = 5 << 30
INDEX = "model.safetensors.index.json"
UINT32, UINT8 = np.dtype(np.uint32), np.dtype(np.uint8)
METADATA = {"format": "mlx"}


@dataclass(frozen=True)
class File:
    """One file: its name, and which of the groups of tensors it has."""

    name: str
    groups: range


def plan_files(groups: Sequence[Sequence[PlannedTensor]], most: int = MOST_BYTES) -> list[File]:
    """Files of at most so many bytes of tensors, in order; a group is never cut."""
    starts, size = [0], 0
    for number, group in enumerate(groups):
        nbytes = sum(tensor.nbytes for tensor in group)
        if size and size + nbytes > most:
            starts.append(number)
            size = 0
        size += nbytes
    ends = [*starts[1:], len(groups)]
    count = len(starts)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    names = names if count > 1 else ["model.safetensors"]
    return [
        File(name, range(start, end)) for name, start, end in zip(names, starts, ends, strict=True)
    ]


def index_json(
    files: Sequence[File], groups: Sequence[Sequence[PlannedTensor]], parameters: int
) -> bytes:
    """Which file has which tensor."""
    placed = {
        tensor.name: file.name
        for file in files
        for number in file.groups
        for tensor in groups[number]
    }
    total = sum(tensor.nbytes for group in groups for tensor in group)
    content = {
        "metadata": {"total_size": total, "total_parameters": parameters},
        "weight_map": dict(sorted(placed.items())),
    }
    return (json.dumps(content, indent=4) + "\n").encode()
