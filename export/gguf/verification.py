"""Reopen a written GGUF file with llama.cpp's own reader and compare every tensor's hash.

What was hashed on the way out is looked for where an independent reader finds it: a wrong offset,
size, type or name, or bytes that changed after they were written, do not pass. The bytes may come
from the page cache. Then the model is tried in llama.cpp; whether the values are right is for the
parity runner to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeproof.errors import InputError
from export.checkpoint import Checkpoint
from export.gguf.trial import try_in_llama_cpp

CHUNK_BYTES = 4 << 20
RETRY = "this should not happen: check the disk and the memory, then export it again with --force"


def check_files(checkpoint: Checkpoint, files: Mapping[Path, Mapping[str, str]]) -> str:
    """Check one model's files, each with the hashes of its tensors; a line on what more was done.

    Raises:
        InputError: as `check_tensors`, or llama.cpp cannot run the model.
    """
    for path, written in files.items():
        check_tensors(path, written)
    return try_in_llama_cpp(min(files), checkpoint.config.vocab)


def check_tensors(path: Path, written: Mapping[str, str]) -> None:
    """Compare the tensors of a file with `written`: name → hex SHA-256 of the stored bytes.

    Raises:
        InputError: the reader cannot parse the file; a tensor is missing, unknown or differs.
    """
    places = _places(path)
    for name in written.keys() ^ places.keys():
        what = "is missing from the file" if name in written else "was not written"
        raise InputError(f"{path.name}: verification: tensor {name} {what}; {RETRY}")
    with path.open("rb") as file:
        for name, (offset, size) in places.items():
            file.seek(offset)
            digest = hashlib.sha256()
            for start in range(0, size, CHUNK_BYTES):
                digest.update(file.read(min(CHUNK_BYTES, size - start)))
            if digest.hexdigest() != written[name]:
                what = "differs from what was written"
                raise InputError(f"{path.name}: verification: tensor {name} {what}; {RETRY}")


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Tensor name → offset and size in bytes, as gguf-py finds them."""
    from gguf import GGUFReader

    class Reader(GGUFReader):  # type: ignore[misc]
        """Over a plain view of the mapping: slices of np.memmap take twice the time."""

        @property
        def data(self) -> np.ndarray:
            return self._view

        @data.setter
        def data(self, mapping: np.ndarray) -> None:
            self._view = np.asarray(mapping)

    try:
        tensors = Reader(path).tensors
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path.name}: verification: cannot be read ({error}); {RETRY}") from None
    return {tensor.name: (int(tensor.data_offset), int(tensor.n_bytes)) for tensor in tensors}
