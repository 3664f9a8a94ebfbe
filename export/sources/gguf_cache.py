"""Converted GGUF files in the cache: each is converted once.

Invariant: what decides the bytes is the file's content, the permutation and the version of the
conversion.
"""

from __future__ import annotations

from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from export.sources.checkpoint_cache import Converted, cached
from export.sources.gguf_split_names import split_paths

# Raise it when the converted bytes change.
CONVERSION = 4


def converted(gguf: Path, stem: str, permutation_seed: str | None = None) -> Converted:
    """The checkpoint made from a GGUF file, converted now if the cache does not have it.

    Args:
        gguf: the file, or any one of its splits.
        stem: readable first part of the cache folder's name; it decides no bytes.
        permutation_seed: put the channels that have no order into this seed's (`permutation`).

    Raises:
        InputError: the file is not a supported model, or the cache cannot be written.
    """
    try:
        records = input_records(split_paths(gguf), cache_folder() / "digests")
    except OSError as error:
        raise InputError(f"{gguf}: cannot be read ({error.strerror})") from None

    def write(folder: Path) -> str | None:
        from export.sources.gguf_checkpoint import write_checkpoint

        return write_checkpoint(gguf, folder, permutation_seed)

    recipe = [CONVERSION, [item.sha256 for item in records], permutation_seed]
    return cached(stem, recipe, write)
