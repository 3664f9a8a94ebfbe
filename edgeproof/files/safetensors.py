"""Where a safetensors file has which tensor.

Invariant: every byte range is validated against the file, so that a truncated or hostile header is
an `InputError` and never a crash. Layout: 8-byte little-endian header length, JSON header, then one
contiguous data section (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgeproof.errors import InputError
from edgeproof.json_text import parse_json

LENGTH = 8
# The format's own limit; it also bounds what a hostile file can make us parse.
MAX_HEADER_BYTES = 100_000_000
LFS_POINTER = b"version "  # https://git-lfs.com/spec/v1


class DtypeError(InputError):
    """A tensor of a dtype that is not read."""


@dataclass(frozen=True)
class Stored:
    """One tensor: its dtype by the format's name; `offset` counts from the file's first byte."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def stored_tensors(path: Path, widths: Mapping[str, int]) -> dict[str, Stored]:
    """The tensors of a file by name; `widths` are the bytes of a value of each dtype that is read.

    Raises:
        InputError: the file is missing, truncated, malformed or holds another dtype.
    """
    try:
        with path.open("rb") as file:
            return _read_header(path, file, file.seek(0, 2), widths)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _read_header(
    path: Path, file: BinaryIO, size: int, widths: Mapping[str, int]
) -> dict[str, Stored]:
    file.seek(0)
    prefix = file.read(LENGTH)
    if len(prefix) < LENGTH:
        raise InputError(f"{path}: truncated safetensors file ({size} bytes); download it again")
    if prefix == LFS_POINTER:
        raise InputError(
            f"{path}: a pointer of Git LFS, not the weights; fetch them (git lfs pull) or download"
            " the model again"
        )
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, size - LENGTH):
        raise InputError(
            f"{path}: truncated or no safetensors file: its header claims {length} of {size} bytes"
        )
    base = LENGTH + length
    try:
        header = parse_json(file.read(length))
        header.pop("__metadata__", None)
        entries = {name: _entry(path, name, spec, base, widths) for name, spec in header.items()}
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        raise InputError(f"{path}: malformed safetensors header; download the file again") from None
    _check_layout(path, entries, base, size)
    return entries


def _entry(
    path: Path, name: str, spec: dict[str, Any], base: int, widths: Mapping[str, int]
) -> Stored:
    width = widths.get(spec["dtype"])
    if width is None:
        raise DtypeError(
            f"{path}: tensor {name} has dtype {spec['dtype']}; supported are {', '.join(widths)}"
        )
    begin, end = (int(value) for value in spec["data_offsets"])
    shape = tuple(int(value) for value in spec["shape"])
    if min(shape, default=0) < 0 or math.prod(shape) * width != end - begin or begin < 0:
        raise InputError(f"{path}: tensor {name} has shape {list(shape)} but {end - begin} bytes")
    return Stored(spec["dtype"], shape, base + begin, end - begin)


def _check_layout(path: Path, entries: dict[str, Stored], base: int, size: int) -> None:
    expected = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.offset != expected:
            raise InputError(
                f"{path}: tensor {name} overlaps another or leaves a gap; file damaged"
            )
        expected += entry.nbytes
        if expected > size:
            raise InputError(
                f"{path}: truncated: tensor {name} ends at byte {expected}, the file has {size};"
                " download it again"
            )
