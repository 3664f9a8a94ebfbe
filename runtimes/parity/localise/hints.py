"""What a wrong tensor really is, where a cheap look tells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from runtimes.parity.localise.errors import WeightError
from runtimes.weights.fused import Heads
from runtimes.weights.gguf import split_rotary_pairs

# Two tensors that differ by rounding only correlate better than this, unrelated ones do not at all.
SAME = 0.9
# What may be left over where all values are scaled, or raised, alike: few bits leave 0.1 and more.
SCALED, CONSTANT = 0.3, 0.1
SAMPLE = 4096  # values that are looked at
HEADED = re.compile(r"\.[qkv]_proj\.")
OFFSETS = (1, 2, 4, 8, 16, 32, 64)


def hint(
    got: np.ndarray,
    name: str,
    expected: Mapping[str, np.ndarray],
    heads: Heads,
    found: WeightError,
) -> str:
    """What is wrong with a tensor of the right shape; `found` is how much it differs."""
    if not np.isfinite(got).all():
        return "has NaN or infinite values"
    for value, text in ((0, "all zeros"), (1, "all ones")):
        if (got == value).all():
            return text
    other = f"values differ by {found.error:.2g} of their size, which rounding does not explain"
    return (
        _raised(got, expected[name])
        or _moved(got, name, expected, heads)
        or _scaled(found)
        or _rows(got, expected[name])
        or other
    )


def _raised(got: np.ndarray, want: np.ndarray) -> str | None:
    """Gemma's norms, for example, are stored as what they differ from 1."""
    difference = got - want
    mean = float(difference.mean())
    if not np.isfinite(mean) or float(difference.std()) > CONSTANT * abs(mean):
        return None
    return f"the checkpoint's values {mean:+.3g}"


def _moved(
    got: np.ndarray, name: str, expected: Mapping[str, np.ndarray], heads: Heads
) -> str | None:
    """Which values of the checkpoint these are, in which order."""
    want = expected[name]
    for text, view in _views(name, want, heads):
        if _same(got, view()):
            return text
    for other, values in expected.items():
        if other != name and values.shape == want.shape and _same(got, values):
            return f"has the values of the checkpoint's {other}"
    return None


def _scaled(found: WeightError) -> str | None:
    least = min(abs(found.gain - 1), SCALED * abs(found.gain))
    if not (np.isfinite(found.gain) and found.spread < least):
        return None
    return f"{found.gain:.3g} times the checkpoint's values"


def _views(
    name: str, want: np.ndarray, heads: Heads
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """What to say of the checkpoint's own values in a wrong order, and these values."""
    if want.ndim == 2:
        yield "transposed", lambda: want.T.reshape(want.shape)
        yield "transposed", lambda: want.reshape(want.shape[::-1]).T
    turned = heads.query if "q_proj" in name else heads.kv if "k_proj" in name else None
    if turned and want.shape[0] % (2 * turned) == 0:
        yield (
            "rows permuted as if its rotary halves were interleaved",
            lambda: split_rotary_pairs(want, turned),
        )
        yield "rows permuted as if its rotary pairs were halves", lambda: _pair(want, turned)
    rows = {"a row": 1, **({"a head": heads.size} if HEADED.search(name) else {})}
    for text, count in rows.items() if want.ndim == 2 else ():
        yield f"shifted by {text}", partial(np.roll, want, count, axis=0)
        yield f"shifted by {text} backwards", partial(np.roll, want, -count, axis=0)
    for offset in (sign * size for size in OFFSETS for sign in (1, -1)):
        if offset % want.size:
            yield f"shifted by {offset} values", partial(np.roll, want, offset)


def _pair(rows: np.ndarray, heads: int) -> np.ndarray:
    """The opposite of `split_rotary_pairs`: rotary partners side by side."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def _same(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether values are the same but for rounding, by their correlation in a sample."""
    step = max(1, got.size // SAMPLE) | 1  # odd, so that no column is always skipped
    ours, theirs = (array.reshape(-1)[::step].astype(np.float64) for array in (got, want))
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()  # norms are all near 1
    sizes = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return sizes > 0 and float(ours @ theirs) / sizes > SAME


def _rows(got: np.ndarray, want: np.ndarray) -> str | None:
    """Which rows are wrong, where that is a minority."""
    if got.ndim < 2:
        channels = np.flatnonzero(np.abs(got - want) > 0.05 * np.abs(want).max())
        return _places("channel", channels, len(want))
    worst = np.abs(got - want).max(axis=1) / np.maximum(np.abs(want).max(axis=1), 1e-30)
    return _places("row", np.flatnonzero(worst > 0.5), len(want))


def _places(what: str, indices: np.ndarray, count: int) -> str | None:
    if not 0 < len(indices) <= count // 2:
        return None
    first, last = int(indices[0]), int(indices[-1])
    many = f"{what}s {first} to {last}" if first != last else f"{what} {first}"
    return f"{len(indices)} of {count} {what}s differ ({many})"
