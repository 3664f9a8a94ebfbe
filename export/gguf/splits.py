"""Divide a GGUF file into splits as llama.cpp's converter does, so that llama.cpp loads them.

`<stem>-00001-of-0000N.gguf`: every split says its place in `split.*`; the first has all other
metadata. Tensors stay whole and in order. Sources: gguf-py's GGUFWriter (add_shard_kv_data),
llama.cpp's src/llama-model-loader.cpp.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.gguf.container import INT32, UINT16, MetadataEntry
from export.gguf.recipe import Recipe, SplitLimits

MAX_SIZE = "split-max-size"
SIZE = re.compile(r"([1-9][0-9]{0,17})([KMG]?)", re.IGNORECASE)
UNITS = {"G": 10**9, "M": 10**6, "K": 10**3, "": 1}
MOST_SPLITS = 2**16 - 1  # split.count is a uint16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """One file: its name and which tensors, by position, it holds."""

    name: str
    tensors: range


def with_splits(
    variant: Variant[Recipe],
    split_max_size: str | None = None,
    split_max_tensors: int | None = None,
) -> Variant[Recipe]:
    """The variant with limits per file in its recipe and in its name, such as f16-split-500M.

    Raises:
        InputError: a size that is not a number with K, M, G or nothing behind it.
    """
    limits = SplitLimits(
        None if split_max_size is None else _bytes(split_max_size), split_max_tensors
    )
    if limits == SplitLimits():
        return variant
    labels = [] if limits.max_bytes is None else [_size_label(limits.max_bytes)]
    labels += [] if limits.max_tensors is None else [f"{limits.max_tensors}-tensors"]
    return replace(
        variant,
        name="-".join((variant.name, "split", *labels)),
        recipe=replace(variant.recipe, splits=limits),
        aliases=(),
    )


def plan_splits(stem: str, sizes: Sequence[int], variant: Variant[Recipe]) -> list[Split]:
    """Which tensors of these stored sizes, in bytes, go into which file; often one file.

    A tensor larger than the limit gets a file of its own.

    Raises:
        InputError: more files than the format can count.
    """
    limits = variant.recipe.splits
    most_bytes = limits.max_bytes or sum(sizes)
    most_tensors = limits.max_tensors or len(sizes)
    ends = [0, *accumulate(sizes)]
    starts = [0]
    for index in range(1, len(sizes)):
        first = starts[-1]
        if index - first >= most_tensors or ends[index + 1] - ends[first] > most_bytes:
            starts.append(index)
    if len(starts) > MOST_SPLITS:
        raise InputError(f"--{MAX_SIZE}: {len(starts)} files are too many; choose a larger size")
    if len(starts) == 1:
        if limits != SplitLimits():
            log.warning("%s: the model fits into one file and is not split", variant.name)
        return [Split(f"{stem}.gguf", range(len(sizes)))]
    parts = [range(start, end) for start, end in pairwise([*starts, len(sizes)])]
    return [
        Split(f"{stem}-{number:05}-of-{len(parts):05}.gguf", part)
        for number, part in enumerate(parts, 1)
    ]


def split_metadata(
    metadata: Sequence[MetadataEntry], number: int, splits: Sequence[Split]
) -> list[MetadataEntry]:
    """The metadata of split `number`, counted from 0."""
    if len(splits) == 1:
        return list(metadata)
    return [
        *(metadata if number == 0 else ()),
        MetadataEntry("split.no", UINT16, number),
        MetadataEntry("split.count", UINT16, len(splits)),
        MetadataEntry("split.tensors.count", INT32, splits[-1].tensors.stop),
    ]


def _bytes(text: str) -> int:
    match = SIZE.fullmatch(text)
    if match is None:
        raise InputError(f"--{MAX_SIZE} {text!r}: expected a size such as 500M or 2G")
    return int(match[1]) * UNITS[match[2].upper()]


def _size_label(size: int) -> str:
    """The shortest spelling, so that 1G and 1000M are one variant."""
    unit = next(unit for unit, factor in UNITS.items() if size % factor == 0)
    return f"{size // UNITS[unit]}{unit}"
