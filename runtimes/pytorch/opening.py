"""A checkpoint folder → the reference."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch

from edgeproof.errors import InputError
from runtimes.computing import AUTOMATIC, LAYERS, WHOLE, Computing
from runtimes.memory import available_memory, return_large_blocks
from runtimes.pytorch.devices import chosen_device, demand_float32, free_memory
from runtimes.pytorch.held import Held
from runtimes.pytorch.layered import Layered
from runtimes.pytorch.loading import load_model, load_tokenizer
from runtimes.pytorch.runtime import TorchRuntime
from runtimes.pytorch.stored import stored_entries
from runtimes.pytorch.watch import Watch
from runtimes.pytorch.whole import Whole
from runtimes.said import said_of

FLOAT_BYTES = 4
# Beside the weights: libraries, hidden states, keys and values of some replies, logits.
FURTHER_BYTES = 1_500_000_000


def open_reference(
    checkpoint: Path, threads: int, computing: Computing = AUTOMATIC
) -> TorchRuntime:
    """Open a checkpoint folder in float32 with eager attention. No network, no remote code.

    `threads` is PyTorch's setting for the whole process, and so are `return_large_blocks` and
    `demand_float32`.

    Raises:
        InputError: no such device, transformers cannot load it, its tokenizer is not that of
            tokenizer.json, or it cannot be run layer by layer where that is asked for.
    """
    torch.set_num_threads(threads)
    return_large_blocks()
    demand_float32()
    device = torch.device(chosen_device(computing.device))
    tokenizer = load_tokenizer(checkpoint)
    return TorchRuntime(
        partial(_held, checkpoint, computing, device), tokenizer, said_of(checkpoint)
    )


def _held(checkpoint: Path, computing: Computing, device: torch.device, watch: Watch) -> Held:
    if computing.weights == LAYERS:
        return Layered(checkpoint, watch, device)
    if computing.weights != WHOLE and not fits(checkpoint, device.type):
        try:
            return Layered(checkpoint, watch, device)
        except InputError:
            pass  # what is wrong with it, loading it says; else it may still find room
    return Whole(partial(load_model, checkpoint), watch, device)


def fits(checkpoint: Path, device: str) -> bool:
    """Whether the float32 model has room in the memory that is left now, as far as that is known.

    Of a GPU's memory and of the machine's, where it is read first.

    So has a copy of its largest table, which is what a run keeps of the head.
    """
    known = [free for free in (available_memory(), free_memory(device)) if free is not None]
    try:
        sizes = [math.prod(entry.shape) for entry in stored_entries(checkpoint).values()]
    except InputError:
        return True  # loading it says what is wrong
    needed = FLOAT_BYTES * (sum(sizes) + max(sizes, default=0)) + FURTHER_BYTES
    return needed <= min(known, default=needed)
