"""A checkpoint folder → the reference."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from runtimes.memory import return_large_blocks
from runtimes.pytorch.loading import load_model, load_tokenizer
from runtimes.pytorch.runtime import TorchRuntime
from runtimes.said import said_of


def open_reference(checkpoint: Path, threads: int) -> TorchRuntime:
    """Open a checkpoint folder in float32 with eager attention. No network, no remote code.

    `threads` is PyTorch's setting for the whole process, and so is `return_large_blocks`.

    Raises:
        InputError: transformers cannot load it, or its tokenizer is not that of tokenizer.json.
    """
    torch.set_num_threads(threads)
    return_large_blocks()
    load, tokenizer = partial(load_model, checkpoint), load_tokenizer(checkpoint)
    return TorchRuntime(load, tokenizer, said_of(checkpoint))
