"""What PyTorch can compute on, and in which float32."""

from __future__ import annotations

import torch

from edgeproof.errors import InputError
from runtimes.computing import AUTO, DEVICES


def gpu_name() -> str | None:
    """The CUDA device's name, "MPS" for Apple's, None where there is neither."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "MPS" if torch.backends.mps.is_available() else None


def chosen_device(name: str) -> str:
    """A name of `DEVICES`; for `auto` the first one that is there, in their order.

    Raises:
        InputError: PyTorch does not find it.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    there = [device for device in DEVICES if found.get(device)]
    if name == AUTO:
        return there[0]
    if name not in there:
        raise InputError(
            f"--device {name}: PyTorch finds none on this machine; there is {', '.join(there)}"
        )
    return name


def demand_float32() -> None:
    """For the whole process: products of float32 are float32's, never TF32's 10 bits.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html, "TensorFloat-32".
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def free_memory(device: str) -> int | None:
    """Bytes that are free on a CUDA device; None of others."""
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else None
