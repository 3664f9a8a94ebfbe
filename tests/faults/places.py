"""Mistakes in the bytes of an artifact's weights, wherever its format has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from gguf import GGUFReader

from edgeproof.artifact import Artifact
from tests.faults.tensors import DOWN, name

# No format fuses this matrix with another.
WEIGHT = name(DOWN)
GGUF_NAME = "blk.1.ffn_down.weight"
MLC_INDEXES = ("tensor-cache.json", "ndarray-cache.json")
FLOAT16_NAN = b"\x00\x7e"
# The highest bit of a float's exponent: a small number becomes a huge one.
EXPONENT_BIT = 0x40
# By how many bytes weights move: whole values of every type.
SHIFT = 64


@dataclass(frozen=True)
class Place:
    """A weight's bytes in a file from `offset`, and the size in bytes of one of its scales."""

    path: Path
    offset: int
    scale_bytes: int = 0


def nan_weight(artifact: Artifact) -> None:
    """The first float16 of the weight is no number."""
    place = weight_place(artifact, scale=False)
    with place.path.open("r+b") as file:
        file.seek(place.offset)
        file.write(FLOAT16_NAN)
    _resign(artifact)


def flipped_scale(artifact: Artifact) -> None:
    """One bit of the first block's scale, in the byte with the exponent (little-endian)."""
    place = weight_place(artifact, scale=True)
    with place.path.open("r+b") as file:
        file.seek(place.offset + place.scale_bytes - 1)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ EXPONENT_BIT]))
    _resign(artifact)


def shifted_weights(artifact: Artifact) -> None:
    """Everything from the weight to the end of its file lies some bytes too far on."""
    place = weight_place(artifact, scale=False)
    data = np.memmap(place.path, np.uint8, "r+", place.offset)
    data[:] = np.roll(data, SHIFT)
    data.flush()
    _resign(artifact)


def weight_place(artifact: Artifact, scale: bool) -> Place:
    """Where the weight begins; with `scale`, where its first scale does."""
    return PLACES[artifact.manifest.variant.format](artifact, scale)


def _gguf(artifact: Artifact, scale: bool) -> Place:
    """A block of Q8_0 begins with its float16 scale."""
    path = artifact.file(".gguf")
    (tensor,) = (item for item in GGUFReader(path).tensors if item.name == GGUF_NAME)
    return Place(path, int(tensor.data_offset), scale_bytes=2)


def _onnx(artifact: Artifact, scale: bool) -> Place:
    """External data; the graphs of an artifact share it."""
    path = artifact.files(".onnx")[-1]
    (tensor,) = (
        item
        for item in onnx.load(path, load_external_data=False).graph.initializer
        if item.name == (f"{WEIGHT}.scales" if scale else WEIGHT)
    )
    data = {entry.key: entry.value for entry in tensor.external_data}
    size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return Place(path.parent / data["location"], int(data["offset"]), size)


def _mlc(artifact: Artifact, scale: bool) -> Place:
    """A record of a shard; scales are float16."""
    wanted = WEIGHT.replace(".weight", ".q_scale") if scale else WEIGHT
    for shard in json.loads((artifact.path / MLC_INDEXES[0]).read_text())["records"]:
        for record in shard["records"]:
            if record["name"] == wanted:
                return Place(artifact.path / shard["dataPath"], record["byteOffset"], 2)
    raise KeyError(wanted)


PLACES: dict[str, Callable[[Artifact, bool], Place]] = {"onnx": _onnx, "gguf": _gguf, "mlc": _mlc}


def _resign(artifact: Artifact) -> None:
    """MLC's indexes have the MD5 of each shard: an exporter with the fault would write it right."""
    for index_name in MLC_INDEXES:
        path = artifact.path / index_name
        if path.exists():
            index = json.loads(path.read_text())
            for shard in index["records"]:
                data = (artifact.path / shard["dataPath"]).read_bytes()
                shard["md5sum"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
            path.write_text(json.dumps(index))
