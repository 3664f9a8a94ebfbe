"""Have Optimum trace a checkpoint, and write what it made in the layout of our own graphs.

Invariant: values and nodes are Optimum's; only where the tensors' bytes lie is ours.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeproof.artifact import ArtifactWriter, HashedFile
from edgeproof.errors import InputError
from export.checkpoint import CheckpointFolder
from export.format import Advance
from export.onnx.folder import FOLDER, GRAPH_FILES, config_json
from export.onnx.graph import StoredTensor, external_tensor
from export.onnx.traced.environment import optimum_bin
from export.onnx.traced.recipe import Recipe
from export.onnx.weights import place, write_placed

SCRIPT = Path(__file__).parent / "trace.py"
GRAPH, WEIGHTS = "graph.onnx", "weights"
CHUNK_BYTES = 64 << 20


def write_traced(
    checkpoint: CheckpointFolder, recipe: Recipe, writer: ArtifactWriter, advance: Advance
) -> None:
    """Write graphs, weights, config and tokenizer files of one variant.

    Raises:
        InputError: Optimum's environment cannot be made, Optimum refuses the model, or a value is
            not finite in the variant's type.
    """
    dtype, file = recipe.dtype, GRAPH_FILES[recipe.dtype]
    with writer.scratch() as scratch:
        trace(checkpoint.path, scratch, dtype)
        model = onnx.load(scratch / GRAPH, load_external_data=False)
        outside = [item for item in model.graph.initializer if item.external_data]
        bytes_of = {item.name: _mapped(item, scratch / WEIGHTS) for item in outside}
        placements = place([_stored(item) for item in outside], f"{file}_data")
        write = partial(_write_tensor, bytes_of, writer, advance)
        chunks = write_placed(placements, FOLDER, writer, write)
        for folder in (FOLDER, ""):
            for item, placement in zip(outside, placements, strict=True):
                item.CopyFrom(external_tensor(placement, "" if folder else FOLDER))
            writer.write(f"{folder}{file}", model.SerializeToString(deterministic=True))
        del bytes_of, write
    writer.write("config.json", config_json(checkpoint, dtype, recipe.stored, file, chunks))
    for name in checkpoint.tokenizer_files:
        writer.write(name, checkpoint.shipped(name))


def trace(checkpoint: Path, out: Path, dtype: str) -> None:
    """Run Optimum in its own environment: graph.onnx and weights in `out`.

    Raises:
        InputError: with the last line that Optimum wrote.
    """
    python = optimum_bin() / "python"
    # -I: nothing of the caller's Python reaches that environment.
    done = subprocess.run(
        [python, "-I", SCRIPT, checkpoint.resolve(), out.resolve(), dtype],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=out,
    )  # fmt: skip
    if done.returncode < 0:
        raise InputError(f"{checkpoint}: Optimum was killed by signal {-done.returncode}; a trace"
                         " needs some 20 bytes of memory per parameter")  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["no message"]
        hint = "" if dtype == "fp32" else "; try --dtype fp32"
        raise InputError(f"{checkpoint}: Optimum cannot trace it: {lines[-1].strip()}{hint}")


def _stored(item: TensorProto) -> StoredTensor:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(item.data_type))
    return StoredTensor(item.name, tuple(item.dims), dtype, lambda checkpoint: iter(()))


def _mapped(item: TensorProto, weights: Path) -> np.ndarray:
    """The tensor's bytes, memory-mapped: uint8 [n]."""
    where = {entry.key: entry.value for entry in item.external_data}
    offset, length = int(where["offset"]), int(where["length"])
    return np.memmap(weights, np.uint8, "r", offset, (length,))


def _write_tensor(
    bytes_of: dict[str, np.ndarray],
    writer: ArtifactWriter,
    advance: Advance,
    tensor: StoredTensor,
    out: HashedFile,
) -> None:
    values = bytes_of[tensor.name].view(tensor.dtype)
    step = CHUNK_BYTES // tensor.dtype.itemsize
    for start in range(0, len(values), step):
        part: np.ndarray[Any, Any] = values[start : start + step]
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InputError(
                f"tensor {tensor.name} has a value that is not finite in {tensor.dtype};"
                " choose --dtype fp32, or check the checkpoint"
            )
        out.write(part.data)
    if values.dtype.kind == "f":
        writer.stats.add(tensor.dtype.name, tensor.size, tensor.nbytes)
        advance(tensor.size)
