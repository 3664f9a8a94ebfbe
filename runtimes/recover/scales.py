"""Scales of blocks: searched before codes are known, and solved for when they are."""

from __future__ import annotations

import torch

from runtimes.recover.grids import BLOCK, Grid

TINY = 1e-30
# Beside a row's mean diagonal: a block whose codes are all zero leaves its scale undetermined.
RIDGE = 1e-6
PIECE = 1024  # blocks that are searched together: what each try makes of them stays in the cache


def nonzero(scales: torch.Tensor) -> torch.Tensor:
    """To divide by: a block of zeros, or one whose scale underflows float16, stays zero."""
    return torch.where(scales != 0, scales, 1)


def spread(levels: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Values of levels [rows, in] and scales [rows, in / 32]: exact in float32."""
    return levels * scales.repeat_interleave(BLOCK, 1)


def row_errors(weights: torch.Tensor, values: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """E H eᵀ of each row [rows], e the difference of weights and values [rows, in]."""
    difference = values - weights
    return ((difference @ moment) * difference).sum(1)


def searched_scales(blocks: torch.Tensor, importance: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Signed float16 scales [n] of blocks [n, 32], by squared error weighted with `importance`.

    Each try sends the value of largest magnitude to one level, rounds, and fits the scale to the
    codes by least squares; the best fit is kept. `importance` [n, 32], or [1, 32] for all blocks.
    """
    every = (blocks, importance.expand_as(blocks))
    pieces = zip(*(torch.split(part, PIECE) for part in every), strict=True)
    return torch.cat([_searched(piece, weight, grid) for piece, weight in pieces])


def _searched(blocks: torch.Tensor, importance: torch.Tensor, grid: Grid) -> torch.Tensor:
    peak = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    inverse = torch.where(peak != 0, 1 / nonzero(peak), peak)
    scale, best = torch.zeros(len(blocks)), torch.zeros(len(blocks))
    for level in grid.tries:
        codes = grid.nearest(blocks * (level * inverse))
        dot = (importance * blocks * codes).sum(1)
        fitted = dot / (importance * codes * codes).sum(1).clamp(min=TINY)
        better = dot * fitted > best
        scale, best = torch.where(better, fitted, scale), torch.where(better, dot * fitted, best)
    return scale.half().float()


def solved_scales(
    weights: torch.Tensor, moment: torch.Tensor, levels: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """Scales [rows, n] that fit a row's levels [rows, in] best together, rounded to float16.

    A row keeps the scales it has unless its error, with rounded scales, gets smaller.
    """
    rows, width = weights.shape
    blocks = width // BLOCK
    normal = torch.empty(rows, blocks, blocks)
    for block in range(blocks):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        products = (levels[:, part] @ moment[part]) * levels  # [rows, in]
        normal[:, block] = products.view(rows, blocks, BLOCK).sum(2)
    right = ((weights @ moment) * levels).view(rows, blocks, BLOCK).sum(2)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    diagonal += RIDGE * diagonal.mean(1, keepdim=True).clamp(min=TINY)
    solved, info = torch.linalg.solve_ex(normal.double(), right.double())
    fitted = solved.float().half().float()
    sound = (info == 0) & torch.isfinite(fitted).all(1)
    fitted = torch.where(sound[:, None], fitted, scales)
    before = row_errors(weights, spread(levels, scales), moment)
    after = row_errors(weights, spread(levels, fitted), moment)
    return torch.where((after < before)[:, None], fitted, scales)
