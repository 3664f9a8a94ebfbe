"""How MLX stores weights: floats, or codes of so many bits with a scale and a bias for each group.

A value is scale × code + bias; in the mode `mxfp4` a level of E2M1 times a power of two. All that
is looked up or multiplied with is quantised, a tied embedding too, as `mlx_lm.convert` does it;
norms and biases of layers stay floats.
Source: https://github.com/ml-explore/mlx-lm, mlx_lm/utils.py (`quantize_model`);
https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf (MXFP4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.artifact import Precision
from edgeproof.recovery import IQ4_NL_LEVELS
from export.rounding import Grid, Kind, Rounded, Rules
from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32
from export.rounding.grid import POWERS_OF_TWO

# What MLX's kernels have, of those that rows of language models divide into.
GROUPS = (32, 64)
DEFAULT_GROUP = 64
FLOATS = {dtype.name: dtype for dtype in (FLOAT32, FLOAT16, BFLOAT16)}
AFFINE, MXFP4 = "affine", "mxfp4"
MIDDLE = 128  # the code of 0 where signed codes of 8 bits become unsigned ones


@dataclass(frozen=True)
class Scheme:
    """`bits` of a code, None for floats; `activations` where the name itself says a dtype.

    `mode` is MLX's name of what codes stand for, None for `affine`; it has one size of `group`.
    """

    name: str
    precision: Precision
    bits: int | None = None
    activations: str | None = None
    aliases: tuple[str, ...] = ()
    mode: str | None = None
    group: int = DEFAULT_GROUP


def _floats(name: str, precision: Precision, dtype: np.dtype[Any], *aliases: str) -> Scheme:
    return Scheme(name, precision, activations=dtype.name, aliases=aliases)


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        _floats("f32", Precision.FP32, FLOAT32, "fp32"),
        _floats("f16", Precision.FP16, FLOAT16, "fp16"),
        _floats("bf16", Precision.BF16, BFLOAT16),
        Scheme("q8", Precision.EIGHT_BIT, 8),
        *(Scheme(f"q{bits}", Precision.LOW_BIT, bits) for bits in (6, 5, 4, 3)),
        Scheme(MXFP4, Precision.LOW_BIT, 4, mode=MXFP4, group=32),
    )
}

# E2M1's magnitudes in the order of its codes; the highest bit of a code is the sign.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MICROSCALED = Grid(
    Kind.CODEBOOK,
    4,
    32,
    POWERS_OF_TWO,
    Rules.MLX,
    levels=(*(-level for level in reversed(E2M1)), *E2M1),
)
_OWN = range(len(E2M1))
# Code of `MICROSCALED`, whose levels ascend → code of E2M1.
E2M1_CODES = np.array([*(len(E2M1) + code for code in reversed(_OWN)), *_OWN], np.uint8)


def affine(bits: int, group: int, dtype: np.dtype[Any]) -> Grid:
    """What values are rounded to."""
    return Grid(Kind.MINIMUM, bits, group, dtype, Rules.MLX)


def _exact(kind: Kind, bits: int, zero: int = 0, levels: tuple[float, ...] = ()) -> Grid:
    return Grid(kind, bits, 32, FLOAT16, Rules.GGML, zero, levels=levels)


# Bits → grids whose values MLX's codes of these bits hold exactly, in the order in which they are
# tried: those of Q4_0 and Q4_1, Q5_0 and Q5_1, Q8_0 and IQ4_NL.
EXACT: dict[int, tuple[Grid, ...]] = {
    4: (_exact(Kind.SIGNED, 4, zero=8), _exact(Kind.MINIMUM, 4)),
    5: (_exact(Kind.SIGNED, 5, zero=16), _exact(Kind.MINIMUM, 5)),
    8: (_exact(Kind.CENTRED, 8), _exact(Kind.CODEBOOK, 4, levels=IQ4_NL_LEVELS)),
}
# Grid in recovery.json → bits that store it.
RECOVERED_BITS = {"q4": 4, "q5": 5, "q8": 8, "iq4_nl": 8}


def as_affine(rounded: Rounded, grid: Grid) -> Rounded:
    """Blocks of a grid of `EXACT` as unsigned codes with scales and biases of the same values.

    A bias is minus a power of two times the scale, or the minimum: no bit is lost.
    """
    if grid.kind is Kind.MINIMUM:
        return rounded
    if grid.kind is Kind.SIGNED:
        codes, zero = rounded.codes, grid.zero
    elif grid.kind is Kind.CENTRED:
        codes, zero = (rounded.codes.view(np.uint8) ^ np.uint8(MIDDLE)), MIDDLE
    else:
        levels = np.array(grid.levels, np.int16) + MIDDLE
        codes, zero = levels.astype(np.uint8)[rounded.codes], MIDDLE
    with np.errstate(over="ignore"):
        biases = rounded.scales * rounded.scales.dtype.type(-zero)
    return Rounded(codes, rounded.scales, biases)
