"""Rounding is bit for bit ONNX Runtime's own, tails included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi._pybind_state import (
    quantize_matmul_4bits,
    quantize_matmul_8bits,
    quantize_matmul_bnb4,
)
from onnxruntime.quantization.quant_utils import quantize_data

from edgeproof.errors import InputError
from export.onnx import bnb4, dynamic, nbits
from export.onnx.blocks import BlockScheme
from export.onnx.rounded import rounded_parts
from export.rounding import Evidence, Grid, Rounder
from export.rounding.registry import METHODS, NEAREST
from export.targets import Target

pytestmark = pytest.mark.numbers

NATIVE = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}
BLOCKS = st.sampled_from([16, 32, 64, 128])
SEEDS = st.integers(0, 2**32 - 1)
BLOCKS_OF_32 = BlockScheme("any", 4, 32, symmetric=False).grid(np.dtype(np.float32))
round_nearest = METHODS[NEAREST].round


def matrix(seed: int, rows: int, columns: int, dtype: type = np.float32) -> np.ndarray:
    """Normal weights with outliers, rows of very different sizes, and zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-3, 3, (rows, 1))
    values[rng.random((rows, columns)) < 0.05] *= 20
    values[rng.random((rows, columns)) < 0.1] = 0
    return np.abs(values).astype(dtype) if seed % 5 == 0 else values.astype(dtype)


def round_rows(rows: np.ndarray, scheme: BlockScheme, dtype: type) -> tuple[np.ndarray, ...]:
    """What MatMulNBits reads."""
    rounded = round_nearest(rows, scheme.grid(np.dtype(dtype)), Evidence("w"))
    return nbits.packed(rounded, scheme, *rows.shape)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(1, 150).map(lambda n: 2 * n), BLOCKS)
def test_blocks_are_those_of_onnxruntimes_quantiser(
    bits: int, symmetric: bool, dtype: type, seed: int, rows: int, columns: int, block: int
) -> None:
    weights = matrix(seed, rows, columns, dtype)
    scheme = BlockScheme("any", bits, block, symmetric)
    blocks = -(-columns // block)
    native = np.pad(weights.T, ((0, blocks * block - columns), (0, 0)))
    packed = np.zeros((rows, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((rows, blocks), dtype)
    zeros = np.zeros((rows, -(-blocks * bits // 8)), np.uint8)
    NATIVE[bits](
        packed, np.ascontiguousarray(native), scales, zeros, block, rows, columns, symmetric
    )
    expected = (packed, scales) if symmetric else (packed, scales, zeros)
    got = round_rows(weights, scheme, dtype)
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 150))
def test_nf4_is_that_of_onnxruntimes_quantiser(seed: int, rows: int, columns: int) -> None:
    weights = matrix(seed, rows, columns)
    packed = np.zeros((weights.size + 1) // 2, np.uint8)
    peaks = np.zeros(-(-weights.size // 64), np.float32)
    quantize_matmul_bnb4(packed, weights, peaks, 64, 1, rows, columns)
    rounded = round_nearest(weights, bnb4.GRID, Evidence("w"))
    got, got_peaks = bnb4.packed(rounded, weights.size)
    np.testing.assert_array_equal(got_peaks, peaks)
    np.testing.assert_array_equal(got, packed)


class Cut:
    """Stands for a checkpoint: gives a matrix in blocks of so many rows."""

    def __init__(self, weights: np.ndarray, rows: int) -> None:
        self._blocks = [weights[i : i + rows] for i in range(0, len(weights), rows)]

    def blocks(self, target: Target) -> Iterator[np.ndarray]:
        yield from self._blocks


@pytest.mark.parametrize("grid", [bnb4.GRID, dynamic.SIGNED.grid, BLOCKS_OF_32])
@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 90), st.integers(1, 100), st.integers(1, 40), st.integers(1, 5000))
def test_codes_do_not_depend_on_how_many_rows_are_read_and_rounded_at_once(
    grid: Grid, seed: int, rows: int, columns: int, read: int, values: int
) -> None:
    weights = matrix(seed, rows, columns)
    target = Target("w", (), weights.shape)
    whole = round_nearest(weights, grid, Evidence("w"))
    parts = rounded_parts(
        target,
        grid,
        Rounder(METHODS[NEAREST]),
        lambda rounded, rows: (rounded.codes.T, rounded.scales),
        values,
    )
    checkpoint: Any = Cut(weights, read)
    codes = np.concatenate(list(parts.first(checkpoint)))
    scales = np.concatenate(list(parts.other(1)(checkpoint)))
    np.testing.assert_array_equal(codes, whole.codes.T)
    np.testing.assert_array_equal(scales, whole.scales)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(1, 200))
def test_channels_are_those_of_quantize_dynamic(seed: int, rows: int, columns: int) -> None:
    weights = matrix(seed, rows, columns)
    weights[0] *= seed % 3 != 0  # sometimes a channel of zeros
    signed, unsigned = (
        round_nearest(weights, scheme.grid, Evidence("w"))
        for scheme in (dynamic.SIGNED, dynamic.UNSIGNED)
    )
    for row in range(rows):
        zero, scale, codes = quantize_data(weights[row], onnx.TensorProto.INT8, symmetric=True)
        assert (zero, scale) == (0, signed.scales[row])
        np.testing.assert_array_equal(codes, signed.codes[:, row])
        zero, scale, codes = quantize_data(weights[row], onnx.TensorProto.UINT8, symmetric=False)
        assert (zero, scale) == (unsigned.offsets[row], unsigned.scales[row])
        np.testing.assert_array_equal(codes, unsigned.codes[:, row])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_of_zeros_are_exact(bits: int, symmetric: bool) -> None:
    scheme = BlockScheme("any", bits, 32, symmetric)
    _, scales, *_ = round_rows(np.zeros((2, 64), np.float32), scheme, np.float16)
    assert not scales.any()
    assert not np.signbit(scales).any()


def test_a_scale_too_large_for_fp16_is_refused() -> None:
    weights = np.full((1, 32), 1e6, np.float32)
    with pytest.raises(InputError, match="w, scale of a block"):
        round_rows(weights, BlockScheme("any", 4, 32, True), np.float16)
