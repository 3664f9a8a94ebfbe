"""Which GPU PyTorch can compute on."""

from __future__ import annotations

import torch


def gpu_name() -> str | None:
    """The CUDA device's name, "MPS" for Apple's, None where there is neither."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "MPS" if torch.backends.mps.is_available() else None
