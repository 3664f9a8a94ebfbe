"""MLC's storage schemes, one table entry each.

Source of names, dtypes and groups: mlc_llm `quantization/quantization.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.architecture import Role
from export.artifact import Precision, Variant
from export.quantization.cast import BFLOAT16, FLOAT16, FLOAT32
from export.quantization.group import GroupRounding

LINEARS = frozenset({Role.QUERY, Role.KEY, Role.VALUE, Role.OUTPUT, Role.GATE, Role.UP, Role.DOWN})
MATRICES = LINEARS | {Role.EMBEDDING, Role.HEAD}


@dataclass(frozen=True)
class Scheme:
    """How weights are stored.

    `dtype` is the model's dtype: weights are cast to it first, and unquantised ones stay in it.
    `rounding` applies to the parameters whose role is in `quantised`; groups run along the input
    axis and codes are stored as [out, in] (MLC's layout NK).
    """

    name: str
    precision: Precision
    dtype: np.dtype[Any]
    aliases: tuple[str, ...] = ()
    rounding: GroupRounding | None = None
    quantised: frozenset[Role] = frozenset()

    def rounding_of(self, role: Role | None) -> GroupRounding | None:
        """How a parameter of that role is rounded to codes; None when it is stored unquantised."""
        return self.rounding if role in self.quantised else None

    @property
    def variant(self) -> Variant:
        """The scheme as the command line and the manifest know it."""
        plain = stored_dtype(self.dtype).name
        linear = self.name if Role.DOWN in self.quantised else plain
        embedding = self.name if Role.EMBEDDING in self.quantised else plain
        return Variant(
            format="mlc",
            name=self.name,
            precision=self.precision,
            storage=(
                ("linear", linear),
                ("embedding", embedding),
                ("norm", plain),
                ("kv_cache", self.dtype.name),
            ),
            aliases=self.aliases,
        )


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype on disk: MLC's record format `f32-to-bf16` keeps 16 bits of every float32."""
    return BFLOAT16 if dtype == FLOAT32 else dtype


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f16", Precision.FP16, FLOAT16, ("q016", "fp16", "f16")),
        # The model computes in float32 but its weights were rounded to bfloat16 on disk, so the
        # export can only be as good as bfloat16.
        Scheme("q0f32", Precision.BF16, FLOAT32, ("fp32", "f32")),
        Scheme(
            "q4f16_1",
            Precision.LOW_BIT,
            FLOAT16,
            rounding=GroupRounding(bits=4, size=32),
            quantised=MATRICES,
        ),
    )
}
