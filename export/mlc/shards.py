"""Parameter shards and their index, cut exactly as TVM's `dump_tensor_cache` cuts them.

All sizes follow from shapes, so the cuts are planned before a byte is written and the arrays then
stream into files that already have their final names. Source: tvm `contrib/tvmjs.py`,
`TensorCacheShardingManager`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from edgeproof.artifact import ArtifactWriter
from export.mlc.schemes import stored_dtype

SHARD_CAP_BYTES = 32 << 20
RAW = "raw"
F32_TO_BF16 = "f32-to-bf16"


@dataclass(frozen=True)
class StoredArray:
    """One record: `dtype` is what a loader returns; unless `raw`, float32 is bfloat16 on disk."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    raw: bool = False

    @property
    def disk_dtype(self) -> np.dtype[Any]:
        """The dtype on disk."""
        return stored_dtype(self.dtype, raw=self.raw)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return math.prod(self.shape) * self.disk_dtype.itemsize

    @property
    def loaded_bytes(self) -> int:
        """Bytes in a loader's memory."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Shard:
    """One file of consecutive arrays; `number` counts shards in the order they are closed."""

    number: int
    arrays: tuple[StoredArray, ...]

    @property
    def file_name(self) -> str:
        """The shard's file name."""
        return f"params_shard_{self.number}.bin"

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return sum(array.nbytes for array in self.arrays)


def plan_shards(arrays: Iterable[StoredArray], cap: int = SHARD_CAP_BYTES) -> list[Shard]:
    """Distribute arrays over shards of less than `cap` bytes.

    An array that would reach the cap closes the open shard; one of at least half the cap goes into
    a file of its own instead, and the open shard stays open for what follows.
    """
    closed: list[tuple[StoredArray, ...]] = []
    pending: list[StoredArray] = []
    pending_bytes = 0
    for array in arrays:
        if pending_bytes + array.nbytes >= cap:
            if 2 * array.nbytes >= cap:
                closed.append((array,))
                continue
            closed.append(tuple(pending))
            pending, pending_bytes = [], 0
        pending.append(array)
        pending_bytes += array.nbytes
    if pending:
        closed.append(tuple(pending))
    return [Shard(number, members) for number, members in enumerate(closed)]


class ShardFiles:
    """Stream planned arrays into their shards: a context manager.

    Arrays of one shard must be appended in the planned order, each completely. A shard's file is
    closed with its last byte, so at most two are open.
    """

    def __init__(self, writer: ArtifactWriter, shards: list[Shard]) -> None:
        self._writer = writer
        self._shards = shards
        self._shard_of = {array.name: shard for shard in shards for array in shard.arrays}
        self._open: dict[int, _OpenShard] = {}
        self._md5: dict[int, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ShardFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def append(self, name: str, values: np.ndarray) -> None:
        """Append C-contiguous values, in the dtype they have on disk, to the named array."""
        shard = self._shard_of[name]
        opened = self._open.get(shard.number)
        if opened is None:
            opened = self._open[shard.number] = _OpenShard(self._writer, shard)
            self._stack.push(opened.stack)
        opened.append(values)
        if not opened.missing:
            opened.stack.close()
            self._md5[shard.number] = opened.md5.hexdigest()
            del self._open[shard.number]

    def records(self) -> list[dict[str, Any]]:
        """The index's `records`, once every array is complete."""
        return [_shard_record(shard, self._md5[shard.number]) for shard in self._shards]


class _OpenShard:
    def __init__(self, writer: ArtifactWriter, shard: Shard) -> None:
        self.stack = contextlib.ExitStack()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.missing = shard.nbytes
        self._file = self.stack.enter_context(writer.open(shard.file_name))

    def append(self, values: np.ndarray) -> None:
        data = values.reshape(-1).view(np.uint8).data  # bfloat16 has no buffer format of its own
        self._file.write(data)
        self.md5.update(data)
        self.missing -= len(data)


def _shard_record(shard: Shard, md5: str) -> dict[str, Any]:
    records, offset = [], 0
    for array in shard.arrays:
        records.append(
            {
                "name": array.name,
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "format": RAW if array.raw else F32_TO_BF16,
                "nbytes": array.nbytes,
                "byteOffset": offset,
            }
        )
        offset += array.nbytes
    return {
        "dataPath": shard.file_name,
        "format": "raw-shard",
        "nbytes": shard.nbytes,
        "records": records,
        "md5sum": md5,
    }


def write_index(
    writer: ArtifactWriter,
    arrays: list[StoredArray],
    records: list[dict[str, Any]],
    parameters: int,
) -> None:
    """Write the index under its new and its old name; `parameters` is the number of weights."""
    loaded = float(sum(array.loaded_bytes for array in arrays))
    metadata = {
        "ParamSize": len(arrays),
        "ParamBytes": loaded,
        "BitsPerParam": loaded * 8.0 / parameters,
    }
    text = _index_text(metadata, records)
    writer.write("tensor-cache.json", text)
    writer.write("ndarray-cache.json", text)
    if any(array.disk_dtype != array.dtype for array in arrays):
        writer.write("tensor-cache-b16.json", _index_text(metadata, _as_bfloat16(records)))


def _index_text(metadata: dict[str, Any], records: list[dict[str, Any]]) -> bytes:
    return json.dumps({"metadata": metadata, "records": records}, indent=4).encode()


def _as_bfloat16(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same bytes described as what they are, for loaders that know bfloat16."""
    return [
        {
            **shard,
            "records": [
                {**record, "dtype": "bfloat16", "format": RAW}
                if record["dtype"] == "float32"
                else record
                for record in shard["records"]
            ],
        }
        for shard in records
    ]
