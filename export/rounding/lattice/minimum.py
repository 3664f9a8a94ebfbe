"""Scale × code + minimum, both float16: Q4_1, Q5_1.

A value is the float32 sum that ggml computes, rounded once more to the checkpoint's dtype. Blocks
may be missed whose minimum is thousands of times their range, where several scales give the same
differences, and in 16 bits the rare one without its code 0, where thousands of minima are possible.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.rounding.cast import FLOAT16, FLOAT32
from export.rounding.grid import Grid
from export.rounding.lattice.intervals import at_least, following, rounding_interval
from export.rounding.method import Rounded

# float16 minima that are tried for one distance of lowest and highest code.
MINIMA = {FLOAT32: 3, FLOAT16: 8, "bfloat16": 36}
# For the sum's own rounding to float32, before that to the checkpoint's dtype.
MARGIN = 1.01


def find(values: np.ndarray, dtype: np.dtype[Any], grid: Grid) -> tuple[Rounded, np.ndarray]:
    """The widest range of codes, a positive scale, the lowest codes, the least minimum: so tried.

    `values` are float32 [block, n] of the checkpoint's `dtype`.
    """
    count = values.shape[1]
    codes = np.zeros(values.shape, np.uint8)
    scales, minima = np.zeros(count, FLOAT16), np.zeros(count, FLOAT16)
    found = np.zeros(count, bool)
    _constant(values, dtype, Rounded(codes, scales, minima), found, grid.highest)
    for sign in (np.float32(1), np.float32(-1)):
        for steps in range(grid.highest, 0, -1):
            rest = np.flatnonzero(~found)
            if rest.size == 0:
                break
            turned = values[:, rest] * sign
            lowest, spans = turned.min(axis=0), np.ptp(turned.astype(np.float64), axis=0)
            width = spans / steps
            possible = _has_scale(turned, width, steps, dtype)
            near = np.flatnonzero(possible)
            possible[near] = _near_steps(turned[:, near], lowest[near], width[near], dtype)
            for offset in range(grid.highest - steps + 1):
                tried = np.flatnonzero(possible)
                if tried.size == 0:
                    break
                some = turned[:, tried]
                with np.errstate(divide="ignore", invalid="ignore"):
                    asked = np.rint((some - lowest[tried]) / width[tried]) + offset
                scale, minimum, fits = _fit(some, asked, dtype)
                owners = rest[tried[fits]]
                codes[:, owners] = asked[:, fits].astype(np.uint8)
                scales[owners] = scale[fits] * FLOAT16.type(sign)
                minima[owners] = minimum[fits] * FLOAT16.type(sign)
                found[owners] = True
                possible[tried[fits]] = False
    return Rounded(codes, scales, minima), found


def _constant(
    values: np.ndarray, dtype: np.dtype[Any], result: Rounded, found: np.ndarray, highest: int
) -> None:
    """Blocks of one value: a minimum alone if it can, else the code that makes up the rest."""
    alike = np.flatnonzero(values.min(axis=0) == values.max(axis=0))
    value = values[0, alike]
    nearest = value.astype(FLOAT16)
    below = np.nextafter(nearest, FLOAT16.type(-np.inf))
    for code in range(highest + 1):
        for minimum in (nearest, below, _signed_following(nearest)):
            with np.errstate(over="ignore"):
                scale = ((value - minimum.astype(FLOAT32)) / max(code, 1)).astype(FLOAT16)
            scale = scale if code else np.zeros_like(scale)
            total = scale.astype(FLOAT32) * np.float32(code) + minimum.astype(FLOAT32)
            fits = (total.astype(dtype) == value) & ~found[alike]
            owners = alike[fits]
            result.codes[:, owners] = code
            result.scales[owners], result.offsets[owners] = scale[fits], minimum[fits]
            found[owners] = True


def _has_scale(
    values: np.ndarray, width: np.ndarray, steps: int, dtype: np.dtype[Any]
) -> np.ndarray:
    """Whether a float16 scale can be so wide, as far as the values tell: bool [n]."""
    if dtype != FLOAT32:
        return np.asarray(width > 0)
    unsure = np.abs(values).max(axis=0).astype(np.float64) * 2.0**-22
    with np.errstate(over="ignore"):
        scale = width.astype(FLOAT16).astype(np.float64)
    return np.asarray((width > 0) & (np.abs(scale - width) * steps <= unsure))


def _near_steps(
    values: np.ndarray, lowest: np.ndarray, width: np.ndarray, dtype: np.dtype[Any]
) -> np.ndarray:
    """Whether all values can be a whole number of steps from the lowest: bool [n].

    A value, the lowest and the highest are each off by half of `unsure` at most. Between the last
    two, whose errors tilt the line, those of a value and of the line add to one `unsure`.
    """
    low, high = rounding_interval(np.abs(values), dtype)
    unsure = (high - low).max(axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = (values.astype(np.float64) - lowest) / width
    distance = np.abs(away - np.rint(away)).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((width > 0) & (distance <= MARGIN * unsure / width))


def _fit(
    values: np.ndarray, codes: np.ndarray, dtype: np.dtype[Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale at least 0 and minimum, float16 [n], that give the values with these codes, if any."""
    low, high = _signed_interval(values, dtype)
    first, last = codes.argmin(axis=0), codes.argmax(axis=0)
    columns = np.arange(values.shape[1])
    apart = codes[last, columns] - codes[first, columns]
    steepest = (high[last, columns] - low[first, columns]) / apart
    flattest = (low[last, columns] - high[first, columns]) / apart
    least = low[first, columns] - codes[first, columns] * steepest
    most = high[first, columns] - codes[first, columns] * np.maximum(flattest, 0)
    scales, minima = np.zeros(columns.size, FLOAT16), np.zeros(columns.size, FLOAT16)
    fits = np.zeros(columns.size, bool)
    minimum = _signed_at_least(least)
    for _ in range(MINIMA.get(dtype, MINIMA["bfloat16"])):
        left = ~fits[columns] & (minimum <= most)
        if not left.all():
            values, codes, low, high = (part[:, left] for part in (values, codes, low, high))
            columns, minimum, most = columns[left], minimum[left], most[left]
        if columns.size == 0:
            break
        scale, now = _scale_for(values, codes, minimum, low, high, dtype)
        found = columns[now]
        scales[found], minima[found], fits[found] = scale[now], minimum[now], True
        minimum = _signed_following(minimum)
    return scales, minima, fits


def _scale_for(
    values: np.ndarray,
    codes: np.ndarray,
    minimum: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    dtype: np.dtype[Any],
) -> tuple[np.ndarray, np.ndarray]:
    """The scale, float16 [n], that gives the values with these codes and minima, and where it does.

    `low` and `high` are the reals that round to each value.
    """
    wide = minimum.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = np.where(codes > 0, (low - wide) / codes, 0).max(axis=0)
        upper = np.where(codes > 0, (high - wide) / codes, np.inf).min(axis=0)
    possible = (lower <= upper) & (upper > 0) & np.isfinite(minimum)
    scale = at_least(lower, FLOAT16)
    fits = np.zeros(scale.size, bool)
    for one in (scale.copy(), following(scale)):
        tried = np.flatnonzero(possible & ~fits & np.isfinite(one))
        if tried.size:
            sums = one[tried].astype(FLOAT32) * codes[:, tried].astype(FLOAT32)
            sums += minimum[tried].astype(FLOAT32)
            now = tried[(sums.astype(dtype) == values[:, tried]).all(axis=0)]
            scale[now], fits[now] = one[now], True
    return scale, fits


def _signed_interval(values: np.ndarray, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest real that rounds to each value, in float64."""
    low, high = rounding_interval(np.abs(values), dtype)
    low, high = low.astype(np.float64), high.astype(np.float64)
    zero = values == 0  # sums of two float16 are 0 only where they cancel exactly
    low, high = np.where(zero, 0, low), np.where(zero, 0, high)
    negative = values < 0
    return np.where(negative, -high, low), np.where(negative, -low, high)


def _signed_at_least(values: np.ndarray) -> np.ndarray:
    """The smallest float16 that is not below each value."""
    with np.errstate(over="ignore"):
        found = values.astype(FLOAT16)
    return np.where(found.astype(values.dtype) < values, _signed_following(found), found)


def _signed_following(floats: np.ndarray) -> np.ndarray:
    """The next greater float16."""
    return np.asarray(np.nextafter(floats, FLOAT16.type(np.inf)))
