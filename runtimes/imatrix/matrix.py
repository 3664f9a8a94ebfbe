"""Compute an importance matrix and lay it out as llama.cpp's `llama-imatrix` does.

GGUF with `general.type` "imatrix"; for each matrix of a layer, in order of names, float32 tensors
`<name>.in_sum2` [in] and `<name>.counts` [1]. Source: llama.cpp's tools/imatrix/imatrix.cpp.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFWriter, Keys

from edgeproof.errors import InputError
from edgeproof.files.atomic import scratch_folder
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from runtimes.imatrix.calibration import CHUNK_TOKENS, Calibration
from runtimes.weights.gguf import FUSED_NAMES, LAYER_NAMES

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

MATRIX_VERSION = 1
# What the model's arithmetic, its tokenizer and its chat template depend on.
INPUTS = ("*.safetensors", "*.json", "*.jinja")
LAYER_WEIGHT = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")
GGUF_NAMES = {
    theirs: ours for names in (LAYER_NAMES, *FUSED_NAMES.values()) for ours, theirs in names.items()
}

Sums = Mapping[str, tuple[np.ndarray, int]]


class ImatrixWriter(GGUFWriter):  # type: ignore[misc]
    """A GGUF file that is not a model."""

    def add_architecture(self) -> None:
        """Importance matrices have none."""


def cached_path(checkpoint: Path, version: str, calibration: Calibration) -> Path:
    """Where the matrix is kept; everything that it depends on is in the name."""
    files = sorted(path for pattern in INPUTS for path in checkpoint.glob(pattern))
    if not files:
        raise InputError(f"{checkpoint}: not a checkpoint folder (no *.safetensors)")
    recipe = {
        "matrix": MATRIX_VERSION,
        "chunk": CHUNK_TOKENS,
        "dataset": calibration.dataset,
        "text": calibration.text,
        "tokens": calibration.tokens,
        "runtime": version,
        "inputs": [
            [item.path, item.sha256] for item in input_records(files, cache_folder() / "digests")
        ],
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "imatrix" / f"{key}.gguf"


def compute(
    runtime: TorchRuntime, calibration: Calibration, advance: Callable[[int], None]
) -> bytes:
    """The file's bytes; `advance` is told the tokens of each chunk.

    Raises:
        InputError: a layer has no name in llama.cpp.
    """
    chunks = calibration.chunks(runtime)
    total: dict[str, tuple[np.ndarray, int]] = {}
    for chunk in chunks:
        for name, (sums, count) in runtime.input_square_sums(chunk).items():
            before, tokens = total.get(name, (np.zeros_like(sums), 0))
            total[name] = (before + sums, tokens + count)
        advance(len(chunk))
    named = {gguf_name(name): entry for name, entry in total.items()}
    return encode(named, calibration.dataset, len(chunks), max(map(len, chunks)))


def gguf_name(name: str) -> str:
    """llama.cpp's name of a layer's matrix.

    Raises:
        InputError: it has none.
    """
    match = LAYER_WEIGHT.fullmatch(name)
    if match is None or match[2] not in GGUF_NAMES:
        raise InputError(f"{name}: this linear layer has no name in llama.cpp's Llama graph")
    return f"blk.{match[1]}.{GGUF_NAMES[match[2]]}.weight"


def encode(sums: Sums, dataset: str, chunks: int, chunk_size: int) -> bytes:
    """The GGUF file of sums of squares [in] and token counts by llama.cpp's names."""
    with scratch_folder(prefix="edgeproof-") as folder:
        path = folder / "imatrix.gguf"
        writer = ImatrixWriter(path, "")
        writer.add_type("imatrix")
        writer.add_array(Keys.IMatrix.DATASETS, [dataset])
        writer.add_uint32(Keys.IMatrix.CHUNK_COUNT, chunks)
        writer.add_uint32(Keys.IMatrix.CHUNK_SIZE, chunk_size)
        for name, (values, count) in sorted(sums.items()):
            writer.add_tensor(f"{name}.in_sum2", values.astype(np.float32))
            writer.add_tensor(f"{name}.counts", np.array([count], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()
