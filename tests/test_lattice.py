"""`lattice`: what lies on a grid is found exactly, and what does not is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproof.errors import InputError
from export.gguf import storage as gguf
from export.mlc import schemes as mlc
from export.onnx.blocks import BLOCKS
from export.onnx.bnb4 import GRID as NF4
from export.rounding import Evidence, Grid, Kind, Rounded
from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32
from export.rounding.lattice import find_lattice
from export.rounding.method import lanes
from export.rounding.nearest import RULES
from export.rounding.registry import LATTICE, METHODS
from tests.recovered import LEVELS, blocks

pytestmark = pytest.mark.numbers

SIGNED = {
    "Q4_0": gguf.FOUR_BITS,
    "Q5_0": gguf.FIVE_BITS,
    "Q8_0": gguf.EIGHT_BITS,
    "q4 float16": BLOCKS["q4"].grid(FLOAT16),
    "q4 float32": BLOCKS["q4"].grid(FLOAT32),
    "q8 float16": BLOCKS["q8"].grid(FLOAT16),
    "q4f16_1": mlc.FOUR_BITS,
    "q3f16_1": mlc.THREE_BITS,
    "q4f32_1": replace(mlc.FOUR_BITS, scale_dtype=BFLOAT16),
}
OTHERS = {
    "q4-asymmetric float16": BLOCKS["q4-asymmetric"].grid(FLOAT16),
    "q4-asymmetric float32": BLOCKS["q4-asymmetric"].grid(FLOAT32),
    "Q4_1": gguf.FOUR_BITS_UP,
    "Q5_1": gguf.FIVE_BITS_UP,
    "IQ4_NL": gguf.FOUR_BITS_NON_LINEAR,
    "NF4": NF4,
}
GRIDS = {**SIGNED, **OTHERS}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
every_dtype = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16], ids=str)
seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=12, deadline=None)


def stored(rounded: Rounded, grid: Grid, dtype: np.dtype[Any]) -> np.ndarray:
    """What blocks stand for by the grid's own formula, in the checkpoint's dtype: [block, n]."""
    codes, scales = rounded.codes.astype(np.float64), rounded.scales.astype(np.float64)
    values = {
        Kind.CENTRED: lambda: codes * scales,
        Kind.SIGNED: lambda: (codes - grid.zero) * scales,
        Kind.ZERO_POINT: lambda: (codes - rounded.offsets) * scales,
        Kind.MINIMUM: lambda: codes * scales + rounded.offsets.astype(np.float64),
        Kind.CODEBOOK: lambda: np.array(grid.levels)[rounded.codes] * scales,
    }[grid.kind]()
    return values.astype(np.float32).astype(dtype) if dtype != FLOAT16 else values.astype(dtype)


def on_grid(grid: Grid, dtype: np.dtype[Any], seed: int, rows: int) -> np.ndarray:
    """Rows of two blocks on a grid, of every kind that is hard to find again."""
    rng = np.random.default_rng(seed)
    count, lowest, highest = 2 * rows, grid.lowest, grid.highest
    if grid.bits == 8:
        lowest = -127 + (grid.zero if grid.kind is Kind.SIGNED else 0)
    codes = rng.integers(lowest, highest + 1, (grid.block, count))
    narrow = rng.random(count) < 0.4  # without the extreme codes
    middle = (lowest + highest) // 2
    codes[:, narrow] = middle + (codes[:, narrow] - middle) // 2
    sizes = rng.standard_normal(count) * 10.0 ** rng.integers(-5, 1, count) / (highest - lowest)
    scales = sizes.astype(FLOAT16).astype(grid.scale_dtype)  # some are subnormal in float16
    offsets = np.empty(0, np.uint8)
    if grid.kind is Kind.ZERO_POINT:
        scales, offsets = np.abs(scales), rng.integers(0, 16, count).astype(np.uint8)
    if grid.kind is Kind.MINIMUM:
        offsets = (8 * rng.standard_normal(count) * np.abs(sizes)).astype(FLOAT16)
    values = stored(Rounded(codes, scales, offsets), grid, dtype)
    values[:, rng.random(count) < 0.1] = 0
    return np.ascontiguousarray(values.T).reshape(rows, 2 * grid.block)


@every_dtype
@every_grid
@some
@given(seeds, st.integers(1, 12))
def test_every_stored_value_is_given_back(
    grid: Grid, dtype: np.dtype[Any], seed: int, rows: int
) -> None:
    weights = on_grid(grid, dtype, seed, rows)
    found = find_lattice(weights, grid)
    given_back = stored(found.rounded, grid, dtype).T.reshape(weights.shape)
    same = (given_back == weights).reshape(-1, grid.block).all(axis=1)
    assert same[found.on_grid].all()
    if grid.kind is not Kind.MINIMUM or dtype == FLOAT32:
        assert found.on_grid.all()
    assert found.rounded.codes.dtype == grid.code_dtype
    assert found.rounded.scales.dtype == grid.scale_dtype
    assert found.rounded.codes.min() >= grid.lowest
    assert found.rounded.codes.max() <= grid.highest


@pytest.mark.parametrize("grid", [gguf.FOUR_BITS_UP, gguf.FIVE_BITS_UP], ids=["Q4_1", "Q5_1"])
@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_rounded_sums_are_found_but_for_rare_blocks(grid: Grid, dtype: np.dtype[Any]) -> None:
    """16 bits leave scale and minimum so open that not all pairs can be tried."""
    assert find_lattice(on_grid(grid, dtype, 7, 100), grid).on_grid.mean() > 0.97


@every_dtype
@pytest.mark.parametrize("name", LEVELS)
@some
@given(seeds)
def test_recovered_blocks_are_found_whatever_the_checkpoints_dtype(
    name: str, dtype: np.dtype[Any], seed: int
) -> None:
    grid = {
        "q4": gguf.FOUR_BITS,
        "q5": gguf.FIVE_BITS,
        "q8": gguf.EIGHT_BITS,
        "iq4_nl": gguf.FOUR_BITS_NON_LINEAR,
    }[name]
    weights = blocks(name, 64, np.random.default_rng(seed)).astype(dtype)
    found = find_lattice(weights, grid)
    assert found.on_grid.all()
    np.testing.assert_array_equal(stored(found.rounded, grid, dtype).T, weights)


@every_dtype
@some
@given(seeds)
def test_all_formats_get_the_same_codes(dtype: np.dtype[Any], seed: int) -> None:
    weights = blocks("q4", 64, np.random.default_rng(seed)).astype(dtype)
    kept = weights[weights.any(axis=1)]
    ours = find_lattice(kept, gguf.FOUR_BITS).rounded
    for scale_dtype in (FLOAT16, FLOAT32):
        other = find_lattice(kept, BLOCKS["q4"].grid(scale_dtype)).rounded
        np.testing.assert_array_equal(other.codes, ours.codes)
        np.testing.assert_array_equal(other.scales, ours.scales.astype(scale_dtype))
    mirrored = find_lattice(kept, mlc.FOUR_BITS).rounded
    np.testing.assert_array_equal(mirrored.codes, 15 - ours.codes)
    np.testing.assert_array_equal(mirrored.scales, -ours.scales)
    wide = blocks("q8", 64, np.random.default_rng(seed)).astype(dtype)
    wide = wide[wide.any(axis=1)]
    centred = find_lattice(wide, gguf.EIGHT_BITS).rounded
    other = find_lattice(wide, BLOCKS["q8"].grid(FLOAT16)).rounded
    np.testing.assert_array_equal(other.codes, centred.codes.astype(np.int16) + 128)
    np.testing.assert_array_equal(other.scales, centred.scales)


def test_the_smallest_scale_is_taken_and_its_sign_follows_a_rule() -> None:
    row = np.zeros((3, 32), np.float32)
    row[0, :3] = [4, -2, 1]  # scale 0.5 with code 8 would reach 4: −0.5 × −8
    row[1, :3] = [-7, 3, 1]  # both signs are possible with 1, no smaller one is
    row[2, :3] = [-8, 7, 1]
    found = find_lattice(row, gguf.FOUR_BITS).rounded
    assert found.scales.tolist() == [-0.5, 1.0, 1.0]
    assert found.codes[:3, 0].tolist() == [0, 12, 6]


@every_grid
def test_blocks_of_zeros_keep_the_bytes_of_nearest(grid: Grid) -> None:
    rows = np.zeros((4, 2 * grid.block), np.float32)
    rows[1:3] = -0.0
    rows[3, : grid.block] = on_grid(grid, FLOAT32, 5, 1)[0, : grid.block]
    found = find_lattice(rows, grid).rounded
    zero = ~lanes(rows, grid).any(axis=0)
    if (grid.rules, grid.kind) not in RULES:
        assert (found.codes[:, zero] == 8).all()  # as llama.cpp stores it
        assert (found.scales[zero] == 0).all()
        return
    usual = RULES[grid.rules, grid.kind](rows, grid, "w")
    np.testing.assert_array_equal(found.codes[:, zero], usual.codes[:, zero])
    assert found.scales[zero].tobytes() == usual.scales[zero].tobytes()
    if usual.offsets.size:
        assert found.offsets[zero].tobytes() == usual.offsets[zero].tobytes()


@every_dtype
@every_grid
@some
@given(seeds)
def test_a_block_that_is_off_is_refused(grid: Grid, dtype: np.dtype[Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = on_grid(grid, FLOAT32, seed, 3).astype(dtype)
    weights[1, : grid.block] = rng.standard_normal(grid.block).astype(dtype)
    assert not find_lattice(weights, grid).on_grid.all()
    with pytest.raises(InputError) as raised:
        METHODS[LATTICE].round(weights, grid, Evidence("layer.weight"))
    message = str(raised.value)
    assert message.startswith("layer.weight does not lie on the grid")
    assert "\n" not in message


@every_grid
def test_a_value_one_step_away_is_off(grid: Grid) -> None:
    """Exactly or not at all: the next float32 of one value is another checkpoint."""
    weights = on_grid(grid, FLOAT32, 3, 4)
    block = np.flatnonzero(find_lattice(weights, grid).rounded.scales)[0]
    flat = weights.reshape(-1, grid.block)
    place = np.abs(flat[block]).argmin() if flat[block].all() else np.abs(flat[block]).argmax()
    others = np.flatnonzero(np.abs(flat[block]) != 0)
    assert others.size > 2
    flat[block, place] = np.nextafter(flat[block, place], np.float32(np.inf))
    assert not find_lattice(weights, grid).on_grid[block]
