"""Tensors of one stage in one file of the cache: complete, or not there."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgeproof.files.atomic import scratch_folder, storage_errors

Tensors = dict[str, torch.Tensor]
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how Rust's standard library ends such a message


def save(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file in one step.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent) as folder:
            temporary = folder / path.name
            write_file(temporary, {name: value.contiguous() for name, value in tensors.items()})
            temporary.replace(path)


def write_file(
    path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str] | None = None
) -> None:
    """Safetensors' own `save_file`, but what the system refuses is an OSError, as in Python.

    Raises:
        OSError: a disk that is full, or another reason of the system's.
    """
    try:
        save_file(tensors, path, about)
    except SafetensorError as error:
        refused = OS_ERROR.search(str(error))
        if refused is None:
            raise
        number = int(refused[1])
        raise OSError(number, os.strerror(number), str(path)) from None


def load(path: Path) -> Tensors | None:
    """What `save` wrote; None where nothing is.

    Copies, in memory that is aligned as that of computed tensors: results do not depend on whether
    a stage was read back.
    """
    with contextlib.suppress(FileNotFoundError):
        return {name: value.clone() for name, value in load_file(path).items()}
    return None
