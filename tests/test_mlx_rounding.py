"""Codes, scales and biases are those of MLX, bit for bit, and what lies on a grid loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproof.errors import InputError
from export.mlx.exporter import exactly
from export.mlx.packing import pack, words_per_row
from export.mlx.schemes import (
    E2M1_CODES,
    EXACT,
    GROUPS,
    MICROSCALED,
    RECOVERED_BITS,
    SCHEMES,
    affine,
)
from export.rounding import Evidence
from export.rounding.lattice import find_lattice
from export.rounding.registry import METHODS, NEAREST
from runtimes.weights.mlx import dequantise_groups, dequantise_microscaled
from tests import mlx_quantised as known
from tests.recovered import LEVELS, blocks
from tests.tiny import DTYPES

pytestmark = pytest.mark.numbers

CASES = [(d, b, g) for d in known.DTYPES for b in known.BITS for g in known.GROUPS]


@pytest.mark.parametrize(("dtype", "bits", "group"), CASES)
def test_rounding_is_what_mlx_gave(dtype: str, bits: int, group: int) -> None:
    rows = known.rows(dtype)
    rounded = METHODS[NEAREST].round(rows, affine(bits, group, rows.dtype), Evidence("w"))
    words = pack(rounded.codes, bits, len(rows))
    found = known.digest(words, rounded.scales, rounded.offsets)
    assert found == known.recorded()[f"{dtype} q{bits} g{group}"]


@pytest.mark.parametrize("dtype", known.DTYPES)
def test_microscaled_rounding_is_what_mlx_gave(dtype: str) -> None:
    parts = []
    for rows in (known.rows(dtype), known.near_powers(dtype)):
        rounded = METHODS[NEAREST].round(rows, MICROSCALED, Evidence("w"))
        parts += [pack(E2M1_CODES[rounded.codes], 4, len(rows)), rounded.scales.view(np.uint8)]
    assert known.digest(*parts) == known.recorded()[f"{dtype} {known.MXFP4}"]


def test_microscaled_values_are_levels_times_powers_of_two() -> None:
    """Every code and every exponent, read back."""
    codes = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 255, axis=1)
    words = pack(np.concatenate([E2M1_CODES[codes]] * 2), 4, 255)
    scales = np.arange(255, dtype=np.uint8)  # 254: 2 is infinite
    found = dequantise_microscaled(words, scales[:, None])[:, :16]
    levels = np.array(MICROSCALED.levels, np.float64)
    expected = levels * 2.0 ** (scales.astype(np.float64)[:, None] - 127)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    as_floats = scales.view(MICROSCALED.scale_dtype).astype(np.float64)
    np.testing.assert_array_equal(as_floats, 2.0 ** (scales.astype(np.float64) - 127))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "bfloat16"]))
def test_values_on_the_microscaled_grid_stay(seed: int, dtype: str) -> None:
    """Also without the highest level, which may need another exponent."""
    rng = np.random.default_rng(seed)
    levels = np.array(MICROSCALED.levels)
    highest = rng.integers(9, 17, (20, 1))
    codes = rng.integers(16 - highest, highest, (20, 64))
    exponents = np.repeat(rng.integers(-60, 60, (20, 2)), 32, axis=1)
    rows = (levels[codes] * 2.0**exponents).astype(known.DTYPES[dtype])
    rounded = METHODS[NEAREST].round(rows, MICROSCALED, Evidence("w"))
    words = pack(E2M1_CODES[rounded.codes], 4, len(rows))
    scales = rounded.scales.view(np.uint8).reshape(20, 2)
    np.testing.assert_array_equal(dequantise_microscaled(words, scales), rows.astype(np.float32))


def test_mlx_still_gives_what_is_recorded() -> None:
    pytest.importorskip("mlx.core", reason='pip install "edgeproof[mlx]"')
    assert known.all_by_mlx() == known.recorded()


@pytest.mark.parametrize("bits", known.BITS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_packed_codes_are_one_stream_of_bits(bits: int, data: st.DataObject) -> None:
    rows, group = data.draw(st.integers(1, 4)), data.draw(st.sampled_from(GROUPS))
    columns = group * data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, 1 << bits, (rows, columns), np.uint8)
    words = pack(codes.reshape(-1, group).T, bits, rows)
    assert words.shape == (rows, words_per_row(columns, bits))
    stream = np.unpackbits(codes[..., None], axis=2, count=bits, bitorder="little")
    as_bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(as_bits, stream.reshape(rows, -1))
    ones = np.ones((rows, columns // group), np.float32)
    np.testing.assert_array_equal(dequantise_groups(words, ones, ones * 0, bits), codes)


def stored(rows: np.ndarray, bits: int) -> np.ndarray:
    """What MLX has of rows that are stored exactly, with scales and biases in float16."""
    found = exactly(rows, bits, 32, "w")
    assert found.scales.dtype == found.offsets.dtype == np.float16
    words = pack(found.codes, bits, len(rows))
    scales, biases = (part.reshape(len(rows), -1) for part in (found.scales, found.offsets))
    return dequantise_groups(words, scales, biases, bits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", LEVELS)
def test_recovered_values_come_back_as_they_are(grid: str, dtype: str) -> None:
    rows = blocks(grid, 60, np.random.default_rng(3)).reshape(20, 96).astype(DTYPES[dtype])
    back = stored(rows, RECOVERED_BITS[grid]).astype(DTYPES[dtype])
    np.testing.assert_array_equal(back, rows)


@pytest.mark.parametrize("bits", [4, 5])
def test_a_minimum_comes_back_as_it_is(bits: int) -> None:
    """Q4_1, Q5_1: ggml's own sum in float32."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 1 << bits, (60, 32)).astype(np.float32)
    scales, minima = (
        (0.02 * rng.standard_normal((60, 1))).astype(np.float16).astype(np.float32)
        for _ in range(2)
    )
    rows = (codes * np.abs(scales) + minima).reshape(20, 96)
    np.testing.assert_array_equal(stored(rows, bits), rows)


@pytest.mark.parametrize("bits", [scheme.bits for scheme in SCHEMES.values() if scheme.bits])
def test_what_lies_on_no_grid_is_refused(bits: int) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    with pytest.raises(InputError, match="w does not lie on a grid"):
        exactly(rows, bits, 32, "w")


def test_a_bias_that_overflows_float16_is_not_exact() -> None:
    rows = np.zeros((1, 32), np.float32)
    rows[0, :2] = 127 * 512, 512
    assert find_lattice(rows, EXACT[8][0]).on_grid.all()
    with pytest.raises(InputError, match="w does not lie on a grid"):
        exactly(rows, 8, 32, "w")
