"""What is trained behind each tensor of the model, and what the model computes with meanwhile.

The model's parameters always hold what would be stored: products level × float16 scale, float16
norms. Behind them are *latents*: a number near each level, the logarithm of each scale, and vectors
in float32. A gradient by a stored value is taken as one by what it was rounded from (straight
through, Bengio et al. 2013, arXiv:1308.3432), and Adam (Kingma & Ba 2014, arXiv:1412.6980) moves
that. The second moment of a block of levels is one number (as in Zhang et al. 2024, Adam-mini,
arXiv:2406.16793): the state then takes half the memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from runtimes.calibrate.decoder import Share
from runtimes.recover.fold import halved
from runtimes.recover.grids import BLOCK, Grid
from runtimes.recover.rounding import Rounded

# How far a step goes at most, about: latent levels beside the grid's largest one, logarithms of
# scales, and vectors beside their root mean square.
LEVEL_RATE, SCALE_RATE, VECTOR_RATE = 5e-4, 1e-3, 1e-3
FIRST, SECOND = 0.9, 0.95  # Adam's decay of its moments
# Beside the root mean square of a tensor's gradients: rare tokens' rows, whose gradients are
# nothing but noise, would otherwise move as far as all others.
FLOOR = 0.1
TINY = 1e-30
LEAST_SCALE, MOST_HALF = 2.0**-24, 65504.0  # of float16

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stride:
    """One step of Adam: its number from 1, a factor of the rates, one of the gradients."""

    number: int
    rate: float
    clip: float

    def moved(self, first: torch.Tensor, second: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
        """By how much of its rate each latent moves; `floor` is the mean of second moments."""
        correction = math.sqrt(1 - SECOND**self.number) / (1 - FIRST**self.number) * self.rate
        return first * correction / (second.sqrt() + FLOOR * floor.sqrt() + TINY)


class Latent(ABC):
    """What is trained behind one parameter. Its tensors are its whole state."""

    def __init__(self, share: Share) -> None:
        self._share = share

    @abstractmethod
    def update(self, stride: Stride) -> None:
        """Go a step against the parameter's gradient, and round anew."""

    @abstractmethod
    def stored(self) -> Tensors:
        """What a checkpoint is made of, on the CPU; `values_of` reads it."""

    @property
    @abstractmethod
    def state(self) -> Tensors:
        """The tensors that training changes, by name."""

    @abstractmethod
    def _write(self) -> None:
        """Give the parameter what is stored."""

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` was."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
        self._write()

    @property
    def gradient(self) -> torch.Tensor:
        """The parameter's gradient, to which a step's are added."""
        return self._share.gradient


class Matrix(Latent):
    """A matrix [rows, in] on a grid: latent levels, and the logarithm of a factor of each scale.

    Scales keep their signs, and a block whose scale is zero stays zero. About `together` values are
    changed at a time.
    """

    def __init__(self, share: Share, start: Rounded, grid: Grid, together: int) -> None:
        super().__init__(share)
        self._grid = grid
        ends = grid.nearest(torch.tensor([-1e9, 1e9])).tolist()
        self._low, self._high = ends
        self._reach = max(-self._low, self._high)
        device = share.values.device
        self._rows = max(1, together // share.values.shape[1])
        self._levels = start.levels.to(device).float()
        self._base = start.scales.to(device).float()
        self._factors = torch.zeros_like(self._base)
        self._first = torch.zeros_like(self._levels)
        self._second = torch.zeros_like(self._base)
        self._factor_first, self._factor_second = torch.zeros_like(self._base), self._second.clone()
        self._write()

    @property
    def state(self) -> Tensors:
        """The tensors that training changes."""
        return {
            "levels": self._levels,
            "factors": self._factors,
            "first": self._first,
            "second": self._second,
            "factor_first": self._factor_first,
            "factor_second": self._factor_second,
        }

    def update(self, stride: Stride) -> None:
        """Move levels and scales."""
        scales = self._scales()
        pieces = [self.gradient, self._share.values, scales, *self.state.values()]
        split = list(zip(*(torch.split(piece, self._rows) for piece in pieces), strict=True))
        for gradient, values, scale, _, _, first, second, factor_first, factor_second in split:
            slopes = _blocks(gradient) * stride.clip  # [rows, in / 32, 32]
            by_factor = (slopes * _blocks(values)).sum(2)
            slopes *= scale[:, :, None]
            first.lerp_(slopes.view(first.shape), 1 - FIRST)
            second.lerp_(slopes.square_().mean(2), 1 - SECOND)
            factor_first.lerp_(by_factor, 1 - FIRST)
            factor_second.lerp_(by_factor.square(), 1 - SECOND)
        floor, factor_floor = self._second.mean(), self._factor_second.mean()
        for _, _, _, levels, factors, first, second, factor_first, factor_second in split:
            step = stride.moved(_blocks(first), second[:, :, None], floor)
            levels.sub_(step.view(levels.shape), alpha=LEVEL_RATE * self._reach)
            levels.clamp_(self._low, self._high)
            moved = stride.moved(factor_first, factor_second, factor_floor)
            factors.sub_(moved, alpha=SCALE_RATE)
        self._write()

    def stored(self) -> Tensors:
        """Levels and scales."""
        levels = torch.cat(
            [self._grid.nearest(part) for part in torch.split(self._levels, self._rows)]
        )
        return {"levels": levels.to(torch.int8).cpu(), "scales": self._scales().half().cpu()}

    def _scales(self) -> torch.Tensor:
        """Scales [rows, in / 32] as float16 has them, in float32."""
        sizes = (self._base.abs() * self._factors.exp()).clamp(LEAST_SCALE, MOST_HALF)
        return (sizes * self._base.sign()).half().float()

    def _write(self) -> None:
        pieces = (self._share.values, self._levels, self._scales())
        for values, levels, scales in zip(
            *(torch.split(p, self._rows) for p in pieces), strict=True
        ):
            rounded = _blocks(self._grid.nearest(levels)) * scales[:, :, None]
            values.copy_(rounded.view(values.shape))


class Vector(Latent):
    """A norm, whose `offset` + values are those of float16, or a bias, stored as it is."""

    def __init__(self, share: Share, start: torch.Tensor, offset: float | None) -> None:
        super().__init__(share)
        self._offset = offset
        self._values = start.to(share.values.device).clone()
        self._rate = VECTOR_RATE * float(self._values.square().mean().sqrt())
        self._first, self._second = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._write()

    @property
    def state(self) -> Tensors:
        """The tensors that training changes."""
        return {"values": self._values, "first": self._first, "second": self._second}

    def update(self, stride: Stride) -> None:
        """Move the values."""
        slopes = self.gradient * stride.clip
        self._first.lerp_(slopes, 1 - FIRST)
        self._second.lerp_(slopes.square(), 1 - SECOND)
        step = stride.moved(self._first, self._second, self._second.mean())
        self._values.sub_(step, alpha=self._rate)
        self._write()

    def stored(self) -> Tensors:
        """The values."""
        return {"values": self._share.values.cpu().clone()}

    def _write(self) -> None:
        values = self._values
        if self._offset is not None:
            values = halved(values.clamp(-MOST_HALF, MOST_HALF), self._offset)
        self._share.values.copy_(values)


def values_of(stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The float32 values of what `Latent.stored` gave."""
    if "values" in stored:
        return stored["values"]
    return Rounded(stored["levels"], stored["scales"]).values


def _blocks(values: torch.Tensor) -> torch.Tensor:
    """[rows, in] as [rows, in / 32, 32]."""
    return values.view(len(values), -1, BLOCK)
