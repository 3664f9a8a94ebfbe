"""A fixed permutation of the residual stream's channels: the same function in other blocks.

A decoder's residual stream has no order of its own: RMSNorm, the linears that read it and those
that write it may all see its channels in another order, and the logits stay the same. Values are
moved, never changed. Weights that lie exactly on a quantisation grid, block by block, no longer do.
"""

from __future__ import annotations

import hashlib

import numpy as np


def residual_permutation(channels: int, seed: str) -> np.ndarray:
    """Indices [channels], int64: channel i of the new stream is channel `result[i]` of the old.

    Sorting hashes gives the same order on every machine and with every version of NumPy.
    """
    hashes = [hashlib.sha256(f"{seed}:{channel}".encode()).digest() for channel in range(channels)]
    return np.array(sorted(range(channels), key=hashes.__getitem__), dtype=np.int64)
