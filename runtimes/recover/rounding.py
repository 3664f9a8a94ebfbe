"""Round a matrix to a grid, given the moment of its inputs.

Columns are rounded one after the other, each one's error undone by those to its right (GPTQ,
Frantar et al. 2022, arXiv:2210.17323), with a signed scale searched for each block on the weights
as they are then. After that all scales of a row are solved for together, and each code is set to
the best level given all others of its row (coordinate descent), once; then the scales again.

Damping is strong: with GPTQ's usual 0.01 the method fits the calibration text and not the next
(docs/recovery.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgeproof.errors import InputError
from runtimes.recover.grids import BLOCK, Grid
from runtimes.recover.scales import nonzero, searched_scales, solved_scales, spread
from runtimes.recover.side_by_side import Check, unchecked

DAMPING = 0.2  # of the mean diagonal
ROWS = 8192  # rounded together; they do not depend on each other


@dataclass(frozen=True)
class Rounded:
    """Levels [rows, in] int8 and scales [rows, in / 32] float16: their products are the values."""

    levels: torch.Tensor
    scales: torch.Tensor

    @property
    def values(self) -> torch.Tensor:
        """The products, float32 [rows, in]."""
        return spread(self.levels.float(), self.scales.float())


def round_matrix(
    weights: torch.Tensor, moment: torch.Tensor, grid: Grid, check: Check = unchecked
) -> Rounded:
    """Weights [rows, in] on a grid, by the moment H [in, in] of what they are multiplied with.

    `check` may end it between two steps.

    Raises:
        InputError: a scale does not fit float16.
    """
    moment = damped(moment)
    upper = _upper(moment)
    levels, scales = [], []
    for rows in torch.split(weights, ROWS):
        check()
        own_levels, own_scales = _compensated(rows, moment, upper, grid)
        check()
        own_scales = solved_scales(rows, moment, own_levels, own_scales)
        check()
        own_levels = _descended(rows, moment, own_levels, own_scales, grid)
        own_scales = solved_scales(rows, moment, own_levels, own_scales)
        levels.append(own_levels.to(torch.int8))
        scales.append(own_scales.half())
    result = Rounded(torch.cat(levels), torch.cat(scales))
    if not torch.isfinite(result.scales).all():
        raise InputError("values of the weights are too large for a float16 scale")
    return result


def damped(moment: torch.Tensor) -> torch.Tensor:
    """The moment with mean diagonal 1, and damping added to it; that keeps a dead input regular."""
    mean = moment.diagonal().mean()
    scaled = moment / mean if mean > 0 else torch.zeros_like(moment)
    scaled.diagonal().add_(DAMPING if mean > 0 else 1.0)
    return scaled


def _upper(moment: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse, through float64."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment.double()))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _compensated(
    weights: torch.Tensor, moment: torch.Tensor, upper: torch.Tensor, grid: Grid
) -> tuple[torch.Tensor, torch.Tensor]:
    """GPTQ: float levels [rows, in], scales [rows, in / 32]."""
    rest, width = weights.clone(), weights.shape[1]
    levels = torch.empty_like(weights)
    scales = torch.empty(len(weights), width // BLOCK)
    for begin in range(0, width, BLOCK):
        end = begin + BLOCK
        own = upper[begin:end, begin:end]
        importance = moment.diagonal()[None, begin:end]
        scale = searched_scales(rest[:, begin:end], importance, grid)
        scales[:, begin // BLOCK] = scale
        columns = rest[:, begin:end].T.contiguous()  # [32, rows]
        for j in range(BLOCK):
            level = grid.nearest(columns[j] / nonzero(scale))
            levels[:, begin + j] = level
            columns[j] = (columns[j] - level * scale) / own[j, j]
            columns[j + 1 :] -= own[j, j + 1 :, None] * columns[j]
        rest[:, end:] -= columns.T @ upper[begin:end, end:]
    return levels, scales


def _descended(
    weights: torch.Tensor,
    moment: torch.Tensor,
    levels: torch.Tensor,
    scales: torch.Tensor,
    grid: Grid,
) -> torch.Tensor:
    """Levels after one pass over all of them, each the best given the others of its row."""
    values = spread(levels, scales)
    gradient = (values - weights) @ moment
    for begin in range(0, weights.shape[1], BLOCK):
        part, scale = slice(begin, begin + BLOCK), scales[:, begin // BLOCK]
        own = moment[part, part]
        slopes = gradient[:, part].T.contiguous()  # [32, rows]
        columns = values[:, part].T.contiguous()
        for j in range(BLOCK):
            level = grid.nearest((columns[j] - slopes[j] / own[j, j]) / nonzero(scale))
            levels[:, begin + j] = level
            step = level * scale - columns[j]
            slopes += own[j][:, None] * step
            columns[j] += step
        gradient += (columns.T - values[:, part]) @ moment[part]
    return levels


def plainly_rounded(weights: torch.Tensor, importance: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Values [rows, in] of each block rounded by itself, by importance [in] of the inputs."""
    blocks = weights.reshape(-1, BLOCK)
    weighted = importance.expand(weights.shape).reshape(-1, BLOCK)
    scale = searched_scales(blocks, weighted, grid)[:, None]
    return (grid.nearest(blocks / nonzero(scale)) * scale).view(weights.shape)
