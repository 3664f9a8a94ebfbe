"""Matrices whose rounding in MLX is recorded: `python -m tests.mlx_quantised` asks MLX again.

The digests are of what `mlx.core.quantize` (mlx and mlx-cpu 0.32.4) gave for these rows, on a CPU.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np

RECORD = Path(__file__).with_suffix(".json")
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
BITS, GROUPS = (3, 4, 5, 6, 8), (32, 64)
MXFP4 = "mxfp4"
COLUMNS = 192


def rows(dtype: str) -> np.ndarray:
    """Groups of one sign, of zeros of either sign, of one value, tiny, with ties: [64, 192]."""
    # A generator of its own: NumPy's normal numbers are its version's.
    state = (
        np.arange(64 * COLUMNS, dtype=np.uint64) * np.uint64(2862933555777941757)
    ) >> np.uint64(40)
    values = (state.astype(np.float64) / 2**23 - 1).astype(np.float32).reshape(64, COLUMNS)
    values *= np.float32(2.0) ** (np.arange(64) % 9 - 6)[:, None].astype(np.float32)
    values[0], values[1], values[2], values[3] = 0, -0.0, 1, -3
    values[4], values[5] = np.abs(values[4]), -np.abs(values[5])
    values[6] *= np.float32(2.0**-20)
    values[7] += 5
    values[8] -= 5
    values[9] = np.arange(COLUMNS) % 16 - 8
    values[10] = (np.arange(COLUMNS) % 31) / 2 - 7.5
    values[11] = np.where(np.arange(COLUMNS) % 2, 1, -1)
    values[12, ::32] = 100
    return values.astype(DTYPES[dtype])


def near_powers(dtype: str) -> np.ndarray:
    """Groups whose peak is 6 × a power of two, or one of its neighbours, or tiny: [n, 32].

    There the exponent changes.
    """
    kind = DTYPES[dtype]
    plain = np.uint32 if kind.itemsize == 4 else np.uint16
    peaks = (6 * 2.0 ** np.arange(-20, 13)).astype(kind).view(plain)
    found = (peaks[:, None] + np.arange(-8, 24)).astype(plain).view(kind).reshape(-1, 1)
    return (found.astype(np.float32) * np.linspace(-1, 1, 32, dtype=np.float32)).astype(kind)


def digest(*parts: np.ndarray) -> str:
    """Of the bytes of words, scales and, where there are any, biases."""
    joined = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return hashlib.sha256(joined).hexdigest()[:16]


def by_mlx(dtype: str, bits: int, group: int) -> str:
    """What MLX gives."""
    import mlx.core as mx

    values = rows(dtype)
    kinds = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
    given = mx.array(values.astype(np.float32)).astype(kinds[dtype])
    words, scales, biases = mx.quantize(given, group_size=group, bits=bits, stream=mx.cpu)
    plain = np.uint32 if dtype == "float32" else np.uint16
    whole = mx.uint32 if dtype == "float32" else mx.uint16
    parts = (np.array(part.view(whole)).astype(plain) for part in (scales, biases))
    return digest(np.array(words), *parts)


def microscaled_by_mlx(dtype: str) -> str:
    """What MLX gives in its mode `mxfp4`, which computes in the dtype of the rows."""
    import mlx.core as mx

    kinds = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
    parts = []
    for values in (rows(dtype), near_powers(dtype)):
        given = mx.array(values.astype(np.float32)).astype(kinds[dtype])
        parts += mx.quantize(given, group_size=32, bits=4, mode=MXFP4, stream=mx.cpu)
    return digest(*map(np.array, parts))


def all_by_mlx() -> dict[str, str]:
    """Name of the case → digest."""
    affine = {
        f"{dtype} q{bits} g{group}": by_mlx(dtype, bits, group)
        for dtype in DTYPES
        for bits in BITS
        for group in GROUPS
    }
    return affine | {f"{dtype} {MXFP4}": microscaled_by_mlx(dtype) for dtype in DTYPES}


def recorded() -> dict[str, str]:
    """What MLX gave once."""
    found: dict[str, str] = json.loads(RECORD.read_text())
    return found


if __name__ == "__main__":
    RECORD.write_text(json.dumps(all_by_mlx(), indent=1) + "\n")
