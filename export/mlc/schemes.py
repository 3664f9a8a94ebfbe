"""MLC's storage schemes, one table entry each.

Source of names, dtypes and groups: mlc_llm `quantization/quantization.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeproof.artifact import Precision
from edgeproof.families import Role
from export.rounding import Grid, Kind, Rules
from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32

LINEARS = frozenset({Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT, Role.GATE, Role.UP, Role.DOWN})
MATRICES = LINEARS | {Role.EMBEDDING, Role.HEAD}


@dataclass(frozen=True)
class Scheme:
    """How weights are stored.

    `dtype` is the model's dtype: weights are cast to it first, and unquantised ones stay in it.
    The parameters whose role is in `quantised` are rounded to the `grid`, in groups along the input
    axis. Codes and scales are stored as [out, in] (MLC's layout NK); of roles in `transposed` as
    [in, out] (KN). With `raw`, float32 values keep all their bits on disk.
    """

    name: str
    precision: Precision
    dtype: np.dtype[Any]
    aliases: tuple[str, ...] = ()
    grid: Grid | None = None
    quantised: frozenset[Role] = frozenset()
    transposed: frozenset[Role] = frozenset()
    raw: bool = False

    def grid_of(self, role: Role | None) -> Grid | None:
        """What a parameter of that role is rounded to; None when it is stored unquantised."""
        if self.grid is None or role not in self.quantised:
            return None
        return replace(self.grid, scale_dtype=self.disk_dtype)

    @property
    def disk_dtype(self) -> np.dtype[Any]:
        """What values in the model dtype become on disk."""
        return stored_dtype(self.dtype, raw=self.raw)


def stored_dtype(dtype: np.dtype[Any], *, raw: bool) -> np.dtype[Any]:
    """The dtype on disk: unless `raw`, MLC keeps 16 bits of every float32."""
    return BFLOAT16 if dtype == FLOAT32 and not raw else dtype


def _groups(bits: int, size: int) -> Grid:
    """A code in the middle is 0, the greatest one is never used by mlc_llm."""
    return Grid(Kind.SIGNED, bits, size, FLOAT16, Rules.MLC, zero=(1 << (bits - 1)) - 1)


FOUR_BITS, THREE_BITS = _groups(4, 32), _groups(3, 40)
KN = LINEARS | {Role.HEAD}  # never the embedding: its rows are looked up


def _grouped(
    name: str,
    dtype: np.dtype[Any],
    grid: Grid,
    *,
    quantised: frozenset[Role] = MATRICES,
    transposed: frozenset[Role] = frozenset(),
) -> Scheme:
    return Scheme(
        name,
        Precision.LOW_BIT,
        dtype,
        grid=grid,
        quantised=quantised,
        transposed=transposed,
    )


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f16", Precision.FP16, FLOAT16, ("q016", "fp16", "f16")),
        # The model computes in float32 but its weights were rounded to bfloat16 on disk, so the
        # export can only be as good as bfloat16.
        Scheme("q0f32", Precision.BF16, FLOAT32, ("fp32", "f32")),
        Scheme("q0bf16", Precision.BF16, BFLOAT16, ("bf16",)),
        _grouped("q4f16_0", FLOAT16, FOUR_BITS, transposed=KN),
        _grouped("q4f16_1", FLOAT16, FOUR_BITS),
        _grouped("q4f16_2", FLOAT16, FOUR_BITS, quantised=LINEARS),
        _grouped("q4f32_1", FLOAT32, FOUR_BITS),
        _grouped("q4bf16_1", BFLOAT16, FOUR_BITS),
        _grouped("q3f16_0", FLOAT16, THREE_BITS, transposed=KN),
        _grouped("q3f16_1", FLOAT16, THREE_BITS),
    )
}
