"""The files of a checkpoint that another machine needs to do with it what this one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeproof.checkpoints.weight_files import weight_files
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile, remembered_sha256
from edgeproof.steps.planned import GivenFiles

# Other copies of the weights, which are never opened.
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"}
# What is beside weights is small, but for copies of them in formats that nobody has heard of.
LARGEST = 1 << 30


def given_files(folder: Path) -> GivenFiles:
    """All of it but hidden files and other copies of the weights, with hashes.

    Raises:
        InputError: it has no weights, or a file cannot be read.
    """
    paths = sorted(_needed(folder), key=lambda path: path.relative_to(folder).as_posix())
    return GivenFiles(str(folder.absolute()), tuple(_record(path, folder) for path in paths))


def given_file(path: Path) -> GivenFiles:
    """One file, under its own name.

    Raises:
        InputError: it cannot be read.
    """
    return GivenFiles(str(path.parent.absolute()), (_record(path, path.parent),))


def _needed(folder: Path) -> Iterator[Path]:
    counted = {path.name for path in weight_files(folder).paths}
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if any(part.startswith(".") for part in inner.parts) or not path.is_file():
            continue
        if inner.as_posix() in counted or (
            path.suffix.lower() not in WEIGHTS and path.stat().st_size < LARGEST
        ):
            yield path


def _record(path: Path, folder: Path) -> OutputFile:
    digest = remembered_sha256(path, cache_folder() / "digests")
    return OutputFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
