"""What every rounding method owes to the writers, on every grid that a format has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.gguf.storage import FOREIGN, TYPES, BlockType
from export.mlc.schemes import SCHEMES
from export.mlx.schemes import MICROSCALED, affine
from export.onnx import bnb4, dynamic
from export.onnx.blocks import BLOCKS
from export.rounding import BlockAxis, Evidence, Grid, Kind, Need, Rules
from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32
from export.rounding.registry import METHODS

pytestmark = pytest.mark.numbers

GRIDS = {
    **{
        name: entry.grid
        for name, entry in TYPES.items()
        if isinstance(entry, BlockType) and name not in FOREIGN
    },
    **{
        f"{name} {dtype.name}": scheme.grid(dtype)
        for name, scheme in BLOCKS.items()
        for dtype in (FLOAT16, FLOAT32)
    },
    **{scheme.name: scheme.grid for scheme in (dynamic.SIGNED, dynamic.UNSIGNED)},
    "bnb4": bnb4.GRID,
    **{
        f"mlx q{bits} g{group} {dtype.name}": affine(bits, group, dtype)
        for bits, group, dtype in ((3, 32, FLOAT16), (4, 64, BFLOAT16), (8, 64, FLOAT32))
    },
    "mlx mxfp4": MICROSCALED,
    **{
        name: grid
        for name, scheme in SCHEMES.items()
        if (grid := scheme.grid_of(next(iter(scheme.quantised), None))) is not None
    },
}
GGUF = [entry.grid for entry in TYPES.values() if isinstance(entry, BlockType)]
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
# Those that round whatever they get.
ROUNDING = [name for name, method in METHODS.items() if method.needs is not Need.ON_GRID]
every_method = pytest.mark.parametrize("name", ROUNDING)


def rows_of(seed: int, rows: int, columns: int) -> np.ndarray:
    """Rows of very different sizes, some with a sign of their own, and zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-4, 4, (rows, 1))
    values[rng.random((rows, columns)) < 0.2] = 0
    values[0] = 0
    values[rows // 2 :] = np.abs(values[rows // 2 :])
    return values.astype(np.float32)


def evidence(seed: int, columns: int) -> Evidence:
    return Evidence("w", np.random.default_rng(seed).random(columns, np.float32))


def columns_for(grid: Grid, columns: int) -> int:
    """GGUF and MLX have only whole blocks: other tensors stay as they are."""
    whole = grid in GGUF or grid.rules is Rules.MLX
    return columns + -columns % grid.block if whole else columns


@every_method
@every_grid
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 150))
def test_codes_and_scales_are_of_the_grid(
    name: str, grid: Grid, seed: int, rows: int, columns: int
) -> None:
    columns = columns_for(grid, columns)
    weights = rows_of(seed, rows, columns)
    before = weights.copy()
    rounded = METHODS[name].round(weights, grid, evidence(seed, columns))
    np.testing.assert_array_equal(weights, before)
    block = grid.block or columns
    count = (
        -(-weights.size // block) if grid.axis is BlockAxis.FLAT else rows * grid.blocks(columns)
    )
    assert rounded.codes.shape == (block, count)
    assert rounded.codes.dtype == grid.code_dtype
    assert rounded.codes.min() >= grid.lowest
    assert rounded.codes.max() <= grid.highest
    assert (rounded.scales.shape, rounded.scales.dtype) == ((count,), grid.scale_dtype)
    assert np.isfinite(rounded.scales.astype(np.float32)).all()
    offsets = {Kind.ZERO_POINT: np.dtype(np.uint8), Kind.MINIMUM: grid.scale_dtype}
    if grid.kind in offsets:
        assert (rounded.offsets.shape, rounded.offsets.dtype) == ((count,), offsets[grid.kind])
    else:
        assert rounded.offsets.size == 0


@every_method
@every_grid
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 150), st.data())
def test_rows_do_not_depend_on_those_beside_them(
    name: str, grid: Grid, seed: int, rows: int, columns: int, data: st.DataObject
) -> None:
    """Writers give a few rows at a time, as many as fit into the processor's cache."""
    columns = columns_for(grid, columns)
    if grid.axis is BlockAxis.FLAT:
        columns += -columns % grid.block
    cut = data.draw(st.integers(1, rows - 1))
    weights, known = rows_of(seed, rows, columns), evidence(seed, columns)
    whole = METHODS[name].round(weights, grid, known)
    parts = [METHODS[name].round(part, grid, known) for part in (weights[:cut], weights[cut:])]
    codes = np.concatenate([part.codes for part in parts], axis=1)
    scales = np.concatenate([part.scales for part in parts])
    offsets = np.concatenate([part.offsets for part in parts])
    np.testing.assert_array_equal(codes, whole.codes)
    np.testing.assert_array_equal(scales, whole.scales)
    np.testing.assert_array_equal(offsets, whole.offsets)


@every_grid
def test_a_grid_knows_its_codes(grid: Grid) -> None:
    assert grid.highest - grid.lowest == 2**grid.bits - 1
    assert np.iinfo(grid.code_dtype).min <= grid.lowest
    assert grid.highest <= np.iinfo(grid.code_dtype).max
    assert grid.lowest <= grid.zero <= grid.highest
    assert len(grid.levels) in (0, 2**grid.bits)
    assert (grid.kind is Kind.CODEBOOK) == bool(grid.levels)
    assert list(grid.levels) == sorted(grid.levels)
