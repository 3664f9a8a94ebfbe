"""A checkpoint's tensors in PyTorch, one at a time, from its memory-mapped files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgeproof.checkpoints.weight_files import weight_files
from runtimes.weights.safetensors_file import Entry, all_entries

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def stored_entries(checkpoint: Path) -> dict[str, Entry]:
    """Where each tensor of a checkpoint folder lies, by name.

    Raises:
        InputError: a file is missing or damaged.
    """
    return all_entries(weight_files(checkpoint).paths)


def tensor(entry: Entry) -> torch.Tensor:
    """All values in float32: a copy, aligned as computed tensors are; nothing stays mapped."""
    return _mapped(entry).to(torch.float32, copy=True)


def rows(entry: Entry, wanted: torch.Tensor) -> torch.Tensor:
    """Some rows [n] in float32 [n, …]; only these are read."""
    return _mapped(entry)[wanted].float()


def _mapped(entry: Entry) -> torch.Tensor:
    # Copied where it would be written, since PyTorch takes no memory that is read-only.
    data = np.memmap(entry.path, np.uint8, "c", entry.begin, (entry.nbytes,))
    return torch.from_numpy(data).view(DTYPES[entry.dtype]).reshape(entry.shape)
