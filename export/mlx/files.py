"""model.safetensors, or several of them with an index, and their headers.

Invariant: the header of a file is written before its tensors, in whose order these follow.
Sources: https://github.com/huggingface/safetensors (layout); mlx_lm/utils.py (`save_model`: names,
the most bytes of a file, the index).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32

MOST_BYTES = 5 << 30
INDEX = "model.safetensors.index.json"
UINT32 = np.dtype(np.uint32)
NAMES = {UINT32: "U32", FLOAT32: "F32", FLOAT16: "F16", BFLOAT16: "BF16"}
METADATA = {"format": "mlx"}


@dataclass(frozen=True)
class Stored:
    """One tensor of a file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class File:
    """One file: its name, and which of the groups of tensors it has."""

    name: str
    groups: range


def plan_files(groups: Sequence[Sequence[Stored]], most: int = MOST_BYTES) -> list[File]:
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


def header(tensors: Iterable[Stored]) -> bytes:
    """What a file begins with."""
    entries: dict[str, Any] = {"__metadata__": METADATA}
    begin = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + tensor.nbytes],
        }
        begin += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def index_json(files: Sequence[File], groups: Sequence[Sequence[Stored]], parameters: int) -> bytes:
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
