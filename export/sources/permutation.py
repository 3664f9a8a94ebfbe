"""A decoder's channels in another, fixed order: the same function in other blocks.

Three kinds of channels have no order of their own, and the logits stay the same in any:

* the residual stream's: RMSNorm, the linears that read it and those that write it;
* the units of an MLP: rows of gate and up, columns of down;
* a value head's: rows of v, and the columns of o that read its mixtures, one set for each query
  head that shares it.

So every matrix is moved along the axis on which it is quantised. Values are moved, never changed.
Weights that lie exactly on a quantisation grid, block by block, no longer do.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgeproof.families import DecoderConfig
from export.axes import Axis

Orders = dict[Axis, np.ndarray]


def permutation(channels: int, seed: str) -> np.ndarray:
    """Indices [channels], int64: channel i of the new order is channel `result[i]` of the old.

    Sorting hashes gives the same order on every machine and with every version of NumPy.
    """
    hashes = [hashlib.sha256(f"{seed}:{channel}".encode()).digest() for channel in range(channels)]
    return np.array(sorted(range(channels), key=hashes.__getitem__), dtype=np.int64)


def free_orders(config: DecoderConfig, seed: str) -> Orders:
    """An order, as of `permutation`, for each axis whose channels may have any."""
    group = config.heads // config.kv_heads
    heads = [permutation(config.head_dim, f"{seed}:value:{n}") for n in range(config.kv_heads)]
    return {
        Axis.STREAM: permutation(config.hidden, f"{seed}:stream"),
        Axis.INNER: permutation(config.intermediate, f"{seed}:inner"),
        Axis.VALUES: _one_after_the_other(heads),
        Axis.MIXTURES: _one_after_the_other([order for order in heads for _ in range(group)]),
    }


def _one_after_the_other(heads: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([order + n * len(order) for n, order in enumerate(heads)])
