"""An importance matrix: what `--imatrix` gives to llama.cpp's quantiser.

It is llama.cpp's own GGUF format, as `python -m runtimes.imatrix` and `llama-imatrix` write it: for
each matrix `<name>.in_sum2`, the sum of squares of each input channel, and `<name>.counts`, over
how many tokens. A variant's storage names the content by its SHA-256; the content itself is kept in
the cache under that name, so that what is written is what the recipe says, even if FILE changes.
Sources: llama.cpp's tools/imatrix/imatrix.cpp and tools/quantize/quantize.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from edgeproof.files.cache import keep_file, kept_file
from export.architecture import Target
from export.gguf.container import STRING, UINT32, Entry
from export.gguf.recipe import IMATRIX
from export.sources.gguf_container import GgufFile, GgufTensor

KEPT = "imatrix-files"
SUMS, COUNTS = ".in_sum2", ".counts"
# Types that llama.cpp rounds without looking at importance.
UNWEIGHTED = ("F32", "F16", "BF16", "Q8_0")
LAYER = "blk."  # llama-imatrix leaves out the embedding and, by default, the output matrix
AGAIN = "make it again with `python -m runtimes.imatrix`"


@dataclass(frozen=True)
class Imatrix:
    """Mean squares of each matrix's input channels: name → float32 [in]."""

    values: dict[str, np.ndarray]
    dataset: str | None
    chunks: int

    def check(self, targets: Sequence[Target]) -> None:
        """Refuse a matrix of another model.

        Raises:
            InputError: a layer's matrix is missing, unknown, or has another number of inputs.
        """
        widths = {t.name: t.shape[-1] for t in targets if len(t.shape) > 1}
        for name, width in widths.items():
            if name.startswith(LAYER) and name not in self.values:
                raise InputError(f"--imatrix: {name} is missing in the file; {AGAIN}")
            if name in self.values and self.values[name].size != width:
                raise InputError(
                    f"--imatrix: {name} has {self.values[name].size} input channels, the model's"
                    f" has {width}; {AGAIN} for this model"
                )
        for name in self.values.keys() - widths.keys():
            raise InputError(f"--imatrix: the model has no matrix {name}; {AGAIN} for this model")

    def entries(self) -> list[Entry]:
        """The metadata that llama-quantize adds, without the file's name, which is the machine's.

        Of the data set's path, only the last part.
        """
        dataset = re.split(r"[/\\]", self.dataset or "")[-1]
        counts = (("entries_count", len(self.values)), ("chunks_count", self.chunks))
        return [
            *([Entry("quantize.imatrix.dataset", STRING, dataset)] if dataset else ()),
            *(Entry(f"quantize.imatrix.{key}", UINT32, count) for key, count in counts if count),
        ]


def with_imatrix(variant: Variant, path: Path | None) -> Variant:
    """The variant with the file's SHA-256 in its recipe.

    Raises:
        InputError: the file cannot be read or is no importance matrix, or the variant's type does
            not use one.
    """
    if path is None:
        return variant
    check_use(variant)
    return with_imatrix_entries(variant, [(IMATRIX, keep(path))])


def with_imatrix_entries(variant: Variant, entries: Sequence[tuple[str, str]]) -> Variant:
    """The variant with entries on its matrix in its recipe, and `-imatrix` in its name.

    Two different matrices give the same name: the second artifact replaces the first.
    """
    return replace(
        variant,
        name=f"{variant.name}-imatrix",
        storage=(*variant.storage, *entries),
        aliases=(),
    )


def check_use(variant: Variant) -> None:
    """Refuse a type that is rounded without a matrix.

    Raises:
        InputError: naming those that use one.
    """
    if dict(variant.storage)["linear"] in UNWEIGHTED:
        raise InputError(
            f"--imatrix: {variant.name} is rounded without it; leave it out, or choose q4_0, q4_1,"
            " q5_0, q5_1, a K- or an IQ-type"
        )


def keep(path: Path) -> str:
    """Put a file into the cache; its SHA-256.

    Raises:
        InputError: it cannot be read or is no importance matrix.
    """
    _parse(path)
    return keep_file(path, KEPT)


def read_imatrix(digest: str) -> Imatrix:
    """The matrix that `with_imatrix` has put into a recipe.

    Raises:
        InputError: it is no longer in the cache.
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
