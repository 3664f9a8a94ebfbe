"""How far values are off, and how much of that a precision explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Values per group: the size of most formats' blocks.
GROUP = 32
# Of a row's largest value: what counts for a group of smaller ones, whose scale may be rounded to
# a step of the row's or of a larger block's.
SMALL_GROUP = 0.1
BLOCK_ROWS = 4096
INF = float("inf")
# Of the median row's largest value: rows of smaller ones may be rounded to zeros by their
# neighbours, with which they share scales in some types.
LARGE_ROW = 0.5


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """‖got − want‖ / ‖want‖ of each row [T, width], as root mean square over the rows.

    By row, because the first position of many models is hundreds of times larger than all others.
    Infinite where `got` has NaN or infinity and `want` has not; 0 where `want` has them.
    """
    if not np.isfinite(want).all():
        return 0.0
    if not np.isfinite(got).all():
        return float("inf")
    difference = np.linalg.norm((got - want).astype(np.float64), axis=-1)
    size = np.linalg.norm(want.astype(np.float64), axis=-1)
    ratios = np.divide(difference, size, out=np.minimum(difference, 1.0), where=size > 0)
    return float(np.sqrt(np.mean(ratios**2)))


@dataclass(frozen=True)
class WeightError:
    """Of a stored tensor W′ against W.

    `error` is ‖W′ − W‖ / ‖W‖; `gain` the best a in W′ ≈ aW, which rounding leaves near 1;
    `spread` ‖W′ − aW‖ / ‖W‖; `peak` the largest |W′ − W| against the largest |W| in its group;
    `lost` the number of rows that are zeros in place of values as large as other rows'.
    """

    error: float
    gain: float
    spread: float
    peak: float
    lost: int = 0


def weight_error(got: np.ndarray, want: np.ndarray, blind: float = 0.0) -> WeightError:
    """Compare two tensors of one shape; NaN and infinity make everything infinite.

    Differences of at most `blind` are no `peak`.
    """
    squared, product, signal, peak = 0.0, 0.0, 0.0, 0.0
    sizes, zeros = [], []
    for ours, theirs in _blocks(got, want):
        difference = ours - theirs
        if not np.isfinite(difference).all():
            return WeightError(INF, INF, INF, INF)
        squared += float(np.vdot(difference, difference))
        product += float(np.vdot(difference, theirs))
        signal += float(np.vdot(theirs, theirs))
        size = np.abs(theirs)
        starts = np.arange(0, theirs.shape[1], GROUP)
        groups = np.maximum.reduceat(size, starts, axis=1)
        floor = SMALL_GROUP * size.max(axis=1, keepdims=True)
        sizes.append(size.max(axis=1))
        zeros.append(~ours.any(axis=1))
        worst = np.maximum.reduceat(np.abs(difference), starts, axis=1)
        worst[worst <= blind] = 0
        scale = np.maximum(groups, floor)
        ratios = np.divide(worst, scale, out=(worst > 0).astype(np.float32), where=scale > 0)
        peak = max(peak, float(ratios.max()))
    if signal == 0:
        return WeightError(float(squared > 0), 1.0, float(squared > 0), peak)
    rows = np.concatenate(sizes)  # [rows], the largest value of each
    lost = np.concatenate(zeros) & (rows > LARGE_ROW * np.median(rows))
    slope = product / signal
    across = max(squared - slope * product, 0.0)
    return WeightError(
        (squared / signal) ** 0.5, 1 + slope, (across / signal) ** 0.5, peak, int(lost.sum())
    )


def _blocks(got: np.ndarray, want: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    ours, theirs = (np.atleast_2d(array) for array in (got, want))
    for start in range(0, len(theirs), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield ours[rows], theirs[rows]
