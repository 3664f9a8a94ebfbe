"""Group rounding and packing: the reference's examples, and properties over all inputs."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from export.mlc.packing import codes_per_word, pack
from export.mlc.schemes import FOUR_BITS, THREE_BITS
from export.rounding import Evidence, Grid, Rounded
from export.rounding.registry import METHODS, NEAREST
from tests.mlc_reference import tvm_round_groups

pytestmark = pytest.mark.numbers

GRIDS = pytest.mark.parametrize("grid", [FOUR_BITS, THREE_BITS], ids=["4-bit", "3-bit"])
DTYPES = [np.float16, np.float32, ml_dtypes.bfloat16]


def round_groups(weights: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, groups × size] and scales [rows, groups], both in the weights' order."""
    as_rows = replace(grid, scale_dtype=weights.dtype)
    rounded = METHODS[NEAREST].round(weights, as_rows, Evidence("w"))
    return rounded.codes.T.reshape(len(weights), -1), rounded.scales.reshape(len(weights), -1)


def words_of(codes: np.ndarray, grid: Grid, columns: int) -> np.ndarray:
    """Codes of rows, packed: uint32 [rows, words]."""
    rounded = Rounded(codes.reshape(-1, grid.block).T, scales=np.empty(0))
    return pack(rounded.zero_padded(columns), grid).reshape(len(codes), -1)


def group(*values: float) -> np.ndarray:
    """One row of one 4-bit group in float16: the values, then zeros."""
    row = np.zeros((1, 32), np.float16)
    row[0, : len(values)] = values
    return row


# The rows were quantised by mlc_llm itself; scale as the bits of the float16, first words.
@pytest.mark.parametrize(
    ("weights", "scale", "words"),
    [
        (group(0.7, -0.35), 0x2E67, [0x7777774E]),
        (
            group(-7, -3, -1, 0, 1, 3, 7, 0.5),
            0x3C00,
            [0x8EA87640, 0x77777777, 0x77777777, 0x77777777],
        ),
        # The last code is 10 only because float16 rounds 9.499 to 9.5.
        (group(0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, 0.25), 0x2E67, [0xAE1C3A58]),
    ],
)
def test_codes_and_scales_are_the_references(
    weights: np.ndarray, scale: int, words: list[int]
) -> None:
    codes, scales = round_groups(weights, FOUR_BITS)
    assert scales.view(np.uint16).tolist() == [[scale]]
    assert words_of(codes, FOUR_BITS, 32)[0, : len(words)].tolist() == words


def test_a_three_bit_row_of_576_has_15_groups_and_packs_its_padding_as_zero() -> None:
    codes, scales = round_groups(np.ones((2, 576), np.float16), THREE_BITS)
    words = words_of(codes, THREE_BITS, 576)
    assert scales.shape == (2, 15)
    assert words.shape == (2, 60)
    used = (words[..., None] >> (np.arange(10, dtype=np.uint32) * 3)) & 7
    flat = used.reshape(2, -1)
    assert (flat[:, :576] == 6).all()
    assert (flat[:, 576:] == 0).all()


@GRIDS
@given(data=st.data())
def test_packing_keeps_every_code_in_order_and_empties_the_padding(
    grid: Grid, data: st.DataObject
) -> None:
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3 * grid.block))
    shape = (rows, grid.blocks(columns) * grid.block)
    codes = data.draw(
        arrays.arrays(np.uint8, shape, elements=st.integers(0, 2**grid.bits - 1)), "codes"
    )
    words, per_word = words_of(codes, grid, columns), codes_per_word(grid.bits)
    assert (words.dtype, words.shape) == (np.uint32, (rows, shape[1] // per_word))
    unpacked = np.array(
        [
            [(int(word) >> (grid.bits * i)) % 2**grid.bits for word in row for i in range(per_word)]
            for row in words
        ]
    )
    np.testing.assert_array_equal(unpacked[:, :columns], codes[:, :columns])
    assert not unpacked[:, columns:].any()


def finite_rows(dtype: type) -> st.SearchStrategy[np.ndarray]:
    """Rows of any finite values of the dtype, widths with and without a tail."""
    largest = float(ml_dtypes.finfo(dtype).max)
    return arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 90)),
        elements=st.floats(-largest, largest, width=32)
        | st.floats(-1, 1, width=32)
        | st.floats(-(2.0**-23), 2.0**-23, width=32)
        | st.just(0.0),
    ).map(lambda values: values.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@GRIDS
@settings(max_examples=60)
@given(data=st.data())
def test_dequantised_values_are_half_a_step_from_the_weights(
    dtype: type, grid: Grid, data: st.DataObject
) -> None:
    weights = data.draw(finite_rows(dtype))
    codes, scales = round_groups(weights, grid)
    rows, columns = weights.shape
    assert codes.shape == (rows, grid.blocks(columns) * grid.block)
    assert scales.dtype == weights.dtype
    assert codes.max(initial=0) <= 2 * grid.zero
    steps = np.repeat(scales.astype(np.float64), grid.block, axis=1)[:, :columns]
    values = (codes[:, :columns].astype(np.float64) - grid.zero) * steps
    error = np.abs(values - weights.astype(np.float64))
    # Half a step, and what the dtype itself loses: in the scale, m times over (m of its smallest
    # steps where the scale is subnormal), in the quotient, and in the sum, which is below 16.
    info = ml_dtypes.finfo(dtype)
    precision, tiny = float(info.eps), float(info.smallest_subnormal)
    loss = steps * 16 * precision + grid.zero * tiny
    assert (error <= steps / 2 + loss).all()


@given(st.integers(1, 100), st.sampled_from(DTYPES))
def test_zeros_have_scale_zero_and_code_zero(columns: int, dtype: type) -> None:
    codes, scales = round_groups(np.zeros((2, columns), dtype), FOUR_BITS)
    assert not codes.any()
    assert not scales.any()


@GRIDS
def test_float16_arithmetic_rounds_after_every_operation(grid: Grid) -> None:
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((50, 4 * grid.block)).astype(np.float16)
    codes, scales = round_groups(weights, grid)
    m = np.float16(grid.zero)
    groups = weights.reshape(50, 4, -1)
    expected_scales = np.abs(groups).max(-1) / m  # NumPy's own float16 arithmetic
    expected = np.rint(groups / expected_scales[..., None] + m).astype(np.float32)
    assert scales.tobytes() == expected_scales.tobytes()
    assert (codes.reshape(groups.shape) == np.clip(expected, 0, 2 * grid.zero)).all()


def rows_to_the_limits(dtype: type) -> np.ndarray:
    """Random rows of 90, which is no multiple of a group, and rows at every limit of the dtype."""
    rng = np.random.default_rng(1)
    info = ml_dtypes.finfo(dtype)
    tiniest = float(info.smallest_subnormal)
    rows = rng.standard_normal((300, 90))
    rows[0], rows[1, :40], rows[2, 5:] = 0, 0, 0
    rows[3] = np.copysign(0, rows[3])
    rows[4:7] *= np.array([3, 100, 1e5])[:, None] * tiniest
    rows[7], rows[8] = tiniest, -tiniest
    rows[9] = np.sign(rows[9]) * float(info.max)
    rows[10] *= float(info.max) / np.abs(rows[10]).max()
    return rows.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@GRIDS
def test_codes_and_scales_are_tvms_bit_for_bit_for_every_dtype(dtype: type, grid: Grid) -> None:
    pytest.importorskip("tvm")
    weights = rows_to_the_limits(dtype)
    codes, scales = round_groups(weights, grid)
    tvm_codes, tvm_scales = tvm_round_groups(weights, grid)
    assert scales.tobytes() == tvm_scales.tobytes()
    np.testing.assert_array_equal(codes[:, :90], tvm_codes)
