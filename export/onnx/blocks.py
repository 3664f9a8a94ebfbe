"""The blocks of 4 or 8 bits that weights are stored in: bits, values in a block, grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.rounding import Grid, Kind, Rules


@dataclass(frozen=True)
class BlockScheme:
    """`bits` per code, `block` values per scale; symmetric, or with a zero point per block.

    `accuracy_level` is MatMulNBits's: 0 computes in the activations' type, 4 lets a CPU round
    activations to 8 bits.
    """

    name: str
    bits: int
    block: int
    symmetric: bool
    accuracy_level: int = 0

    def grid(self, scale_dtype: np.dtype[Any]) -> Grid:
        """What a weight is stored on."""
        kind = Kind.SIGNED if self.symmetric else Kind.ZERO_POINT
        middle = 1 << (self.bits - 1) if self.symmetric else 0
        return Grid(kind, self.bits, self.block, scale_dtype, Rules.MLAS, middle)

    @property
    def per_byte(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits

    def blocks(self, columns: int) -> int:
        """Blocks of a row; the last one may be padded."""
        return -(-columns // self.block)


BLOCKS = {
    scheme.name: scheme
    for scheme in (
        BlockScheme("q8", bits=8, block=32, symmetric=True, accuracy_level=4),
        BlockScheme("q4", bits=4, block=32, symmetric=True, accuracy_level=4),
        BlockScheme("q4-asymmetric", bits=4, block=32, symmetric=False, accuracy_level=4),
    )
}
