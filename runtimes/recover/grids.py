"""The grids that a recovered matrix can lie on: a float16 scale for 32 inputs × one of few levels.

name    levels                 bits  is
q4      −8 … 7                 4.5   GGUF Q4_0, ONNX MatMulNBits symmetric, MLC q4f16_1 mirrored
iq4_nl  16 of a codebook       4.5   GGUF IQ4_NL
q5      −16 … 15               5.5   GGUF Q5_0
q8      −127 … 127             8.5   GGUF Q8_0, ONNX MatMulNBits of 8 bits
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgeproof.recovery import IQ4_NL_LEVELS

BLOCK = 32


@dataclass(frozen=True)
class Grid:
    """One grid.

    Attributes:
        name: as in `edgeproof.recovery.GRIDS`.
        bits: per weight, with scales.
        nearest: the nearest levels of values / scale, float32 of any shape.
        tries: levels to which the search for a scale sends a block's value of largest magnitude.
        remains: error after the whole recipe beside that of plain rounding to q4; on the real
            SmolLM2-135M.
    """

    name: str
    bits: float
    nearest: Callable[[torch.Tensor], torch.Tensor]
    tries: tuple[float, ...]
    remains: float


def _between(low: int, high: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda values: values.round().clamp(low, high)


def _of_codebook() -> Callable[[torch.Tensor], torch.Tensor]:
    """Bounds between levels are multiples of 0.5: a table of half steps finds the nearest one."""
    levels = torch.tensor(IQ4_NL_LEVELS, dtype=torch.float32)
    steps = torch.arange(-128, 128, 0.5) + 0.25
    nearest = levels[torch.bucketize(steps, (levels[1:] + levels[:-1]) / 2)]

    def find(values: torch.Tensor) -> torch.Tensor:
        return nearest.to(values.device)[(values * 2 + 256).clamp(0, 511).to(torch.int32)]

    return find


GRIDS = {
    grid.name: grid
    for grid in (
        Grid(
            "q4", 4.5, _between(-8, 7),
            (-9.5, -9.1, -8.7, -8.3, -8, -7.7, -7.3, -6.8, -6.2, 6, 6.5, 7, 7.4, 7.8, 8.3), 0.38,
        ),
        Grid("iq4_nl", 4.5, _of_codebook(), (*range(-139, -108, 3), 98, 105, 113, 120), 0.30),
        Grid(
            "q5", 5.5, _between(-16, 15),
            (-17.5, -17, -16.5, -16, -15.5, -15, -14.5, -13.5, 14, 15, 15.5, 16), 0.096,
        ),
        Grid("q8", 8.5, _between(-127, 127), (-127, 127), 0.0016),
    )
}  # fmt: skip
