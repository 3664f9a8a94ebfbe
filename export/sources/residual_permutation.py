"""A fixed permutation of the residual stream's channels: the same function in other blocks.

A decoder's residual stream has no order of its own: RMSNorm, the linears that read it and those
that write it may all see its channels in another order, and the logits stay the same. Values are
moved, never changed. Weights that lie exactly on a quantisation grid, block by block, no longer do.
"""

from __future__ import annotations

import hashlib

import numpy as np

from export.architecture import Role

# The axis of a parameter that runs along the residual stream. Those that write it (their rows, or
# their bias) have it first; embedding, head, norms and the linears that read it have it last. The
# others, such as biases of queries or norms of heads, have none.
RESIDUAL_AXIS = {
    **dict.fromkeys((Role.OUTPUT, Role.DOWN), 0),
    **dict.fromkeys((Role.OUTPUT_BIAS, Role.DOWN_BIAS), -1),
    **dict.fromkeys((Role.EMBEDDING, Role.HEAD), -1),
    **dict.fromkeys((Role.INPUT_NORM, Role.POST_NORM, Role.FINAL_NORM), -1),
    **dict.fromkeys((Role.QUERY, Role.KEY, Role.VALUE, Role.GATE, Role.UP), -1),
}


def residual_permutation(channels: int, seed: str) -> np.ndarray:
    """Indices [channels], int64: channel i of the new stream is channel `result[i]` of the old.

    Sorting hashes gives the same order on every machine and with every version of NumPy.
    """
    hashes = [hashlib.sha256(f"{seed}:{channel}".encode()).digest() for channel in range(channels)]
    return np.array(sorted(range(channels), key=hashes.__getitem__), dtype=np.int64)
