"""Tensors of one stage in one file of the cache: complete, or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from edgeproof.files.atomic import scratch_folder, storage_errors

Tensors = dict[str, torch.Tensor]


def save(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file in one step.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent) as folder:
            temporary = folder / path.name
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
            temporary.replace(path)


def load(path: Path) -> Tensors | None:
    """What `save` wrote; None where nothing is.

    Copies, in memory that is aligned as that of computed tensors: results do not depend on whether
    a stage was read back.
    """
    with contextlib.suppress(FileNotFoundError):
        return {name: value.clone() for name, value in load_file(path).items()}
    return None
