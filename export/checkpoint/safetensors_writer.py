"""Write a safetensors file tensor by tensor, never holding more than one block of it.

Invariant: the bytes are those of the reference library's `safetensors.numpy.save_file` with the
metadata `{"format": "pt"}`: tensors ordered by dtype, widest first, then name; header padded with
spaces to 8 bytes (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.checkpoint.safetensors_file import DTYPES

# What `transformers` asks of every file it loads.
METADATA = {"format": "pt"}
NAMES = {
    **{dtype: name for name, dtype in DTYPES.items()},
    np.dtype(np.uint32): "U32",
    np.dtype(np.uint8): "U8",
}
# The reference library's order of dtypes in a file; widest first keeps every tensor aligned.
ORDER = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor to be written: float32, float16 or bfloat16, or uint32 and uint8 for codes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: Path,
    tensors: Iterable[PlannedTensor],
    blocks: Callable[[str], Iterator[np.ndarray]],
) -> None:
    """Write one file and make it durable.

    Args:
        path: the file, which is replaced.
        tensors: everything the file will hold, in any order.
        blocks: yields a tensor's values in the planned dtype, as C-contiguous runs in order.

    Raises:
        ValueError: the blocks of a tensor are of another dtype or do not add up to its size.
    """
    ordered = sorted(tensors, key=lambda tensor: (ORDER.index(NAMES[tensor.dtype]), tensor.name))
    with path.open("wb", buffering=0) as file:
        _write_all(file, encode_header(ordered, METADATA))
        for tensor in ordered:
            written = 0
            for block in blocks(tensor.name):
                if block.dtype != tensor.dtype:
                    raise ValueError(f"{tensor.name}: {block.dtype} where {tensor.dtype} is due")
                _write_all(file, np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
                written += block.nbytes
            if written != tensor.nbytes:
                raise ValueError(f"{tensor.name}: {written} bytes where {tensor.nbytes} are due")
        os.fsync(file.fileno())


def encode_header(ordered: Sequence[PlannedTensor], metadata: Mapping[str, str]) -> bytes:
    """What a file begins with whose tensors follow in this order.

    Raises:
        ValueError: two tensors have one name.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + tensor.nbytes],
        }
        begin += tensor.nbytes
    if len(header) != len(ordered) + 1:
        raise ValueError("two tensors of the same name")
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_all(file: Any, data: bytes | memoryview) -> None:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += file.write(view[done:])
