"""Find the scale of blocks whose values are scale × level, each rounded to the checkpoint's dtype.

Invariant: what is found was multiplied out and gives every value. The smallest scale comes first:
the value of largest magnitude is tried with one level after the other, the greatest first. With its
level the scale lies in an interval; nearest levels follow for all values, and the interval that all
allow has a float of the scale's type or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32
from export.rounding.lattice.intervals import (
    at_least,
    following,
    is_float,
    rounding_interval,
    working_dtype,
)
from export.rounding.lattice.levels import Levels

# Rungs of few blocks are tried at once, in so many columns.
COLUMNS = 1024
# Rungs whose scales are looked at together, and values of a block that are looked at first.
RUNGS, SCREEN = 8, 6
# float16 scales that may give one bfloat16 value with one level.
DENSE = 18
# Distance of a value from what it was rounded from, beside its size; twice, for the scale has it.
UNCERTAIN = {FLOAT16: 2.0**-10, BFLOAT16: 2.0**-7, FLOAT32: 2.0**-23}


@dataclass(frozen=True)
class Scaled:
    """Of n blocks: scales of their dtype [n], integer or codebook levels float32 [block, n].

    `found` [n] says which blocks lie on the grid; the others have 0.
    """

    scales: np.ndarray
    levels: np.ndarray
    found: np.ndarray


def find_scales(
    values: np.ndarray, dtype: np.dtype[Any], levels: Levels, scale_dtype: np.dtype[Any]
) -> Scaled:
    """The smallest scale of every block that has one.

    For float32 scales those that float16 holds come first, whatever their size, so that every
    format gets the same codes.

    Args:
        values: float32 [block, n] of the checkpoint's `dtype`, no block without a value but 0.
        dtype: float32, float16 or bfloat16.
        levels: what codes stand for.
        scale_dtype: of the stored scale.
    """
    result = _none(values, scale_dtype)
    dense = UNCERTAIN[dtype] >= levels.spacing / 2
    for kind in _scale_dtypes(scale_dtype, dense=dense):
        rest = np.flatnonzero(~result.found)
        if rest.size == 0:
            break
        some = values if rest.size == values.shape[1] else values[:, rest]
        if dtype == FLOAT32 and kind != FLOAT32:
            part = _exact(some, levels, kind)
        else:
            part = _rounded(some, dtype, levels, kind, _each if dense else _within)
        result.scales[rest] = part.scales.astype(scale_dtype)
        result.levels[:, rest] = part.levels
        result.found[rest] = part.found
    return result


def _scale_dtypes(scale_dtype: np.dtype[Any], *, dense: bool) -> tuple[np.dtype[Any], ...]:
    """The types of scales in the order in which they are tried."""
    if scale_dtype != FLOAT32:
        return (scale_dtype,)
    return (FLOAT16,) if dense else (FLOAT16, FLOAT32)


def _none(values: np.ndarray, scale_dtype: np.dtype[Any]) -> Scaled:
    count = values.shape[1]
    return Scaled(
        np.zeros(count, scale_dtype), np.zeros(values.shape, np.float32), np.zeros(count, bool)
    )


def _peaks(values: np.ndarray) -> np.ndarray:
    """Per block a value of largest magnitude, with its sign: [n]."""
    high, low = values.max(axis=0), values.min(axis=0)
    return np.asarray(np.where(high >= -low, high, low))


def _exact(values: np.ndarray, levels: Levels, scale_dtype: np.dtype[Any]) -> Scaled:
    """Values are products that float32 holds: a scale is a quotient without remainder."""
    result, rungs = _none(values, scale_dtype), levels.rungs
    peaks, steps = _peaks(values), rungs.levels.astype(np.float32)
    rest = np.arange(peaks.size)
    for start in range(0, steps.size, RUNGS):
        some = slice(start, start + RUNGS)
        tops = np.where(rungs.free[some], np.abs(peaks[rest])[:, None], peaks[rest, None])
        scales = tops / steps[some]  # [blocks, rungs]
        possible = is_float(scales, scale_dtype) & (scales * steps[some] == tops)
        tried = np.flatnonzero(possible.any(axis=1))
        while tried.size:
            rung = possible[tried].argmax(axis=1)
            possible[tried, rung] = False
            owners, scale = rest[tried], scales[tried, rung]
            part = values if owners.size == values.shape[1] else values[:, owners]
            found, fits = _product(part, scale, levels)
            _keep(result, owners, scale.astype(scale_dtype), found, fits)
            tried = tried[~fits]
            tried = tried[possible[tried].any(axis=1)]
        rest = rest[~result.found[rest]]
        if rest.size == 0:
            break
    return result


def _product(
    values: np.ndarray, scales: np.ndarray, levels: Levels
) -> tuple[np.ndarray, np.ndarray]:
    """The levels nearest to values ÷ scales, and whether their products are the values: [n]."""
    with np.errstate(over="ignore"):
        found = levels.nearest(values / scales)
    fits = (found * scales == values).all(axis=0)
    fits[fits] = levels.admit(found if fits.all() else found[:, fits])
    return found, fits


def _rounded(
    values: np.ndarray,
    dtype: np.dtype[Any],
    levels: Levels,
    scale_dtype: np.dtype[Any],
    search: Search,
) -> Scaled:
    """Values are rounded products: of each, an interval of scales gives it."""
    result, rungs = _none(values, scale_dtype), levels.rungs
    low, high = rounding_interval(np.abs(values), dtype)
    whole = _Block(values, low, high, dtype, working_dtype(dtype, scale_dtype))
    peaks, at = _peaks(values), np.abs(values).argmax(axis=0)
    rest, rung = np.arange(values.shape[1]), 0
    while rest.size and rung < rungs.levels.size:
        count = min(rungs.levels.size - rung, max(1, COLUMNS // rest.size))
        steps = np.tile(rungs.levels[rung : rung + count], rest.size)  # rungs of one block together
        free = np.tile(rungs.free[rung : rung + count], rest.size)
        owners = np.repeat(rest, count)
        tops = np.where(free, np.abs(peaks[owners]), peaks[owners]).astype(whole.work)
        middles = (tops / steps).astype(whole.work)
        tried = np.arange(owners.size)
        if search is _within:
            tried = np.flatnonzero(_plausible(whole, owners, middles, levels))
        sizes, columns = np.abs(steps[tried]).astype(whole.work), owners[tried]
        span = (low[at[columns], columns] / sizes, high[at[columns], columns] / sizes)
        block = whole.of(columns)
        scales, found, fits = search(block, levels, scale_dtype, span, middles[tried])
        # Of a block's rungs the first that fits.
        fitting = np.zeros(owners.size, bool)
        fitting[tried] = fits
        by_block = fitting.reshape(rest.size, count)
        first = (by_block & (by_block.cumsum(axis=1) == 1)).reshape(-1)[tried]
        result.scales[columns[first]] = scales[first]
        result.levels[:, columns[first]] = found[:, first]
        result.found[columns[first]] = True
        rest, rung = rest[~by_block.any(axis=1)], rung + count
    return result


def _plausible(
    whole: _Block, owners: np.ndarray, middles: np.ndarray, levels: Levels
) -> np.ndarray:
    """Whether a few values of a block allow a scale about so great: bool [n]."""
    values = whole.values[:SCREEN, owners].astype(whole.work)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = levels.nearest(values / middles)
        away = np.abs(found * middles - values)
    width = whole.high[:SCREEN, owners] - whole.low[:SCREEN, owners]
    # The interval of the scale is no wider, beside the scale, than twice that of any value.
    allowed = width + np.abs(values) * (4 * UNCERTAIN[whole.dtype])
    return np.asarray((away <= allowed).all(axis=0))


@dataclass(frozen=True)
class _Block:
    """Columns that are tried together: values and the intervals of their magnitudes [block, n]."""

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    dtype: np.dtype[Any]
    work: np.dtype[Any]

    def is_given_by(self, scales: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Whether scales [n] of either sign × levels round to all values: bool [n]."""
        with np.errstate(over="ignore", invalid="ignore"):
            products = scales.astype(self.work) * found
            return np.asarray((products.astype(self.dtype) == self.values).all(axis=0))

    def of(self, columns: np.ndarray) -> _Block:
        """Some of them."""
        return _Block(
            self.values[:, columns],
            self.low[:, columns],
            self.high[:, columns],
            self.dtype,
            self.work,
        )


Span = tuple[np.ndarray, np.ndarray]
Tried = tuple[np.ndarray, np.ndarray, np.ndarray]  # scales [n], levels [block, n], fits [n]
Search = Callable[
    [_Block, Levels, "np.dtype[Any]", Span, np.ndarray],
    Tried,
]


def _within(
    block: _Block,
    levels: Levels,
    scale_dtype: np.dtype[Any],
    span: Span,
    middles: np.ndarray,
) -> Tried:
    """All values are so near to a level that the scale's uncertainty does not change which."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = levels.nearest(block.values / middles)
        sizes = np.abs(found)
        used = block.values != 0
        least = np.where(used, block.low / sizes, 0).max(axis=0)
        most = np.where(used, block.high / sizes, np.inf).min(axis=0)
    fits = (least <= most) & np.isfinite(most)
    scales = np.zeros(fits.size, scale_dtype)
    tried = np.flatnonzero(fits)
    if tried.size == 0:
        return scales, found, fits
    part, kept = block.of(tried), found[:, tried]
    candidate = at_least(least[tried].astype(block.work), scale_dtype)
    fits[tried] = levels.admit(kept)
    given, signs = np.zeros(tried.size, bool), np.sign(middles[tried]).astype(scale_dtype)
    for one in (candidate, following(candidate)):  # the second where an end does not belong to it
        signed = (one * signs).astype(scale_dtype)
        now = ~given & part.is_given_by(signed, kept) & np.isfinite(one) & (one > 0)
        scales[tried[now]] = signed[now]
        given |= now
    fits[tried] &= given
    return scales, found, fits


def _each(
    block: _Block,
    levels: Levels,
    scale_dtype: np.dtype[Any],
    span: Span,
    middles: np.ndarray,
) -> Tried:
    """Levels are as near to each other as bfloat16 values: try each scale of 16 bits."""
    count, signs = middles.size, np.sign(middles).astype(scale_dtype)
    scales, fits = np.zeros(count, scale_dtype), np.zeros(count, bool)
    result = np.zeros(block.values.shape, np.float32)
    candidate = at_least(span[0], scale_dtype)
    for _ in range(DENSE):
        open_ = candidate.astype(block.work) <= span[1]
        tried = np.flatnonzero(~fits & open_ & (candidate > 0) & np.isfinite(candidate))
        if tried.size:
            part = block.of(tried)
            signed = (candidate[tried] * signs[tried]).astype(scale_dtype)
            found = levels.nearest(part.values / signed.astype(np.float32))
            now = part.is_given_by(signed, found)
            now[now] = levels.admit(found[:, now]) if now.any() else now[now]
            scales[tried[now]] = signed[now]
            result[:, tried[now]] = found[:, now]
            fits[tried[now]] = True
        candidate = following(candidate)
    return scales, result, fits


def _keep(
    result: Scaled, tried: np.ndarray, scales: np.ndarray, found: np.ndarray, fits: np.ndarray
) -> None:
    owners = tried[fits]
    result.scales[owners] = scales[fits]
    result.levels[:, owners] = found if fits.all() else found[:, fits]
    result.found[owners] = True
