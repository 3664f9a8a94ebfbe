"""Bring an artifact's shards into memory, in the layout of the compiled decoder.

Invariant: the artifact has exactly the arrays that its config implies, with their shapes and
dtypes; otherwise nothing is loaded. Peak memory is the stored weights plus what they become.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.contrib import tvmjs
from tvm.runtime import ShapeTuple

from edgeproof.errors import DamagedExportError, InputError
from edgeproof.json_text import parse_json
from runtimes.mlc_index import index_path
from runtimes.tvm.scheme import Record, Scheme, module_of, stored_records

# One tuple per layer: what the compiled functions take as parameters to run it.
Weights = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class FoundWeights:
    """The weights in an artifact, known to be complete. Use `find_weights`.

    `parameters` are the decoder's, in its functions' order, with `{layer}` in the names of those of
    layers; `stored` has the logical shape and the records of each parameter by its full name.
    """

    index: Path
    scheme: Scheme
    parameters: tuple[str, ...]
    layers: int
    stored: Mapping[str, tuple[tuple[int, ...], tuple[Record, ...]]]

    def load(self, loader: relax.VirtualMachine) -> Weights:
        """Load all shards; `loader` dequantises and packs them."""
        arrays, _ = tvmjs.load_tensor_cache(str(self.index), tvm.cpu())
        packed = {}
        for name, (shape, records) in self.stored.items():
            kn = self.scheme.transposed(module_of(name))
            parts = [arrays.pop(record.name) for record in records]
            packed[name] = _pack(parts, shape, loader, "dequantize_kn" if kn else "dequantize")
        return tuple(
            tuple(packed[name.format(layer=layer)] for name in self.parameters)
            for layer in range(self.layers)
        )


def find_weights(
    folder: Path, parameters: Mapping[str, tuple[int, ...]], layers: int, scheme: Scheme
) -> FoundWeights:
    """Compare an artifact's index and shard sizes with what the decoder needs; loads nothing.

    Args:
        folder: the artifact.
        parameters: `decoder.parameters`: names and logical shapes.
        layers: how many layers the model has.
        scheme: of the weights.

    Raises:
        InputError: naming the first array or shard that is missing, superfluous or does not fit.
    """
    stored = {
        name: (shape, stored_records(name, shape, scheme))
        for layer in range(layers)
        for name, shape in _in_layer(parameters, layer)
    }
    index = index_path(folder)
    _check_index(index, [record for _, records in stored.values() for record in records])
    return FoundWeights(index, scheme, tuple(parameters), layers, stored)


def _in_layer(
    parameters: Mapping[str, tuple[int, ...]], layer: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in parameters.items():
        yield name.format(layer=layer), shape


def _check_index(index: Path, expected: Sequence[Record]) -> None:
    try:
        shards = parse_json(index.read_text("utf-8"))["records"]
        found = {}
        for shard in shards:
            _check_shard(index.parent / shard["dataPath"], shard)
            for record in shard["records"]:
                found[record["name"]] = _stored_record(index, record, shard["nbytes"])
    except OSError as error:
        raise InputError(f"{index}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise DamagedExportError(f"{index}: malformed") from None
    for record in expected:
        if record.name not in found:
            raise DamagedExportError(f"{index}: parameter {record.name} is missing")
        if found.pop(record.name) != record:
            raise DamagedExportError(
                f"{index}: parameter {record.name} is not {record.dtype} {list(record.shape)},"
                " as the config asks"
            )
    for name in found:
        raise InputError(f"{index}: unexpected parameter {name}; the config implies none")


def _check_shard(path: Path, shard: Mapping[str, Any]) -> None:
    size = path.stat().st_size if path.is_file() else None
    if shard["format"] != "raw-shard" or size != shard["nbytes"]:
        raise DamagedExportError(f"{path}: missing or not {shard['nbytes']} bytes long")


def _stored_record(index: Path, record: Mapping[str, Any], shard_bytes: int) -> Record:
    """The record, once its byte range is one that TVM's loader can read."""
    result = Record(record["name"], tuple(record["shape"]), record["dtype"])
    halved = record["format"] == "f32-to-bf16" and result.dtype == "float32"
    begin, size = record["byteOffset"], record["nbytes"]
    if size != result.nbytes // (2 if halved else 1) or not 0 <= begin <= shard_bytes - size:
        raise InputError(f"{index}: parameter {result.name} has {size} bytes at {begin}, damaged")
    return result


def _pack(
    arrays: Sequence[Any], shape: tuple[int, ...], loader: relax.VirtualMachine, dequantize: str
) -> Any:
    if len(shape) == 1:
        return arrays[0]
    if len(arrays) == 1:
        return loader["pack"](*arrays)
    return loader[dequantize](*arrays, ShapeTuple(shape[1:]))
