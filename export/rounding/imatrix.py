"""An importance matrix file: how much each input channel of a model's matrices matters.

It is llama.cpp's own GGUF format, as `python -m runtimes.imatrix` and `llama-imatrix` write it: for
each matrix `<name>.in_sum2`, the sum of squares of each input channel, and `<name>.counts`, over
how many tokens. A variant's recipe names the content by its SHA-256; the content itself is kept in
the cache under that name, so that what is written is what the recipe says, even if FILE changes.
Sources: llama.cpp's tools/imatrix/imatrix.cpp and tools/quantize/quantize.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import Parameter
from edgeproof.files.cache import keep_file, kept_file
from export.llamacpp.tensors import tensor_name
from export.sources.gguf_container import GgufFile, GgufTensor
from export.targets import Target

KEPT = "imatrix-files"
SUMS, COUNTS = ".in_sum2", ".counts"
AGAIN = "make it again with `python -m runtimes.imatrix`"


@dataclass(frozen=True)
class Imatrix:
    """Mean squares of each matrix's input channels: llama.cpp's name → float32 [in]."""

    values: dict[str, np.ndarray]
    dataset: str | None
    chunks: int

    def of(self, target: Target) -> np.ndarray | None:
        """The importance of a target's input channels, float32 [in]; None if it has none.

        Sources that are fused share their input, so the first one's is that of all.
        """
        return self.values.get(tensor_name(target.sources[0])) if target.sources else None

    def check(self, parameters: Sequence[Parameter]) -> None:
        """Refuse a matrix of another model.

        llama-imatrix leaves out the embedding and, by default, the output matrix.

        Raises:
            InputError: a layer's matrix is missing, unknown, or has another number of inputs.
        """
        matrices = {tensor_name(p): p for p in parameters if len(p.shape) > 1}
        for name, parameter in matrices.items():
            width = parameter.shape[-1]
            if parameter.layer is not None and name not in self.values:
                raise InputError(f"--imatrix: {name} is missing in the file; {AGAIN}")
            if name in self.values and self.values[name].size != width:
                raise InputError(
                    f"--imatrix: {name} has {self.values[name].size} input channels, the model's"
                    f" has {width}; {AGAIN} for this model"
                )
        for name in self.values.keys() - matrices.keys():
            raise InputError(f"--imatrix: the model has no matrix {name}; {AGAIN} for this model")


def uniform(parameters: Sequence[Parameter]) -> Imatrix:
    """Stands in for a matrix where only its being there counts: every channel matters alike."""
    matrices = [p for p in parameters if len(p.shape) > 1 and p.layer is not None]
    ones = {tensor_name(p): np.ones(p.shape[-1], np.float32) for p in matrices}
    return Imatrix(ones, dataset=None, chunks=0)


def keep_imatrix(path: Path) -> str:
    """Put a file into the cache; its SHA-256.

    Raises:
        InputError: it cannot be read or is no importance matrix.
    """
    _parse(path)
    return keep_file(path, KEPT)


def read_imatrix(digest: str) -> Imatrix:
    """The matrix that `keep_imatrix` has put into the cache.

    Raises:
        InputError: it is no longer there.
    """
    return _parse(kept_file(digest, KEPT))


def _parse(path: Path) -> Imatrix:
    file = GgufFile(path)
    names = [name.removesuffix(SUMS) for name in file.tensors if name.endswith(SUMS)]
    if file.metadata.text("general.type", "") != "imatrix" or not names:
        raise InputError(f"{path}: not an importance matrix; {AGAIN}")
    datasets = file.metadata.value("imatrix.datasets")
    return Imatrix(
        {name: _mean_squares(file, name) for name in names},
        dataset=datasets[0] if isinstance(datasets, list) and datasets else None,
        chunks=file.metadata.integer("imatrix.chunk_count", 0),
    )


def _mean_squares(file: GgufFile, name: str) -> np.ndarray:
    """float32 [in]; all ones for a matrix that saw no token, as in llama-quantize."""
    sums, counts = file.tensors[name + SUMS], file.tensors.get(name + COUNTS)
    where = f"{file.path}: {name}"
    if counts is None:
        raise InputError(f"{where}: {COUNTS[1:]} is missing; {AGAIN}")
    if sums.rows != 1 or (counts.rows, counts.shape[-1]) != (1, 1):
        raise InputError(f"{where}: several matrices in one (experts) are not supported")
    total, count = _floats(file, sums), _floats(file, counts)[0]
    if not (np.isfinite(total).all() and total.min() >= 0 and np.isfinite(count) and count >= 0):
        raise InputError(f"{where}: a value is negative or not finite; {AGAIN}")
    return total / count if count > 0 else np.ones_like(total)


def _floats(file: GgufFile, tensor: GgufTensor) -> np.ndarray:
    if tensor.storage.name != "F32":
        raise InputError(f"{file.path}: {tensor.name} is {tensor.storage.name}, not F32; {AGAIN}")
    values: np.ndarray = file.raw_rows(tensor).reshape(-1).view("<f4").astype(np.float32)
    return values
