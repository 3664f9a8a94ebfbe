"""Rounding is bit for bit ONNX Runtime's own, tails included."""

from __future__ import annotations

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
from export.onnx.bnb4 import pack_nf4
from export.onnx.nbits import BlockScheme, round_rows
from export.quantization.channel import int8_channels, uint8_channels

pytestmark = pytest.mark.numbers

NATIVE = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}
BLOCKS = st.sampled_from([16, 32, 64, 128])
SEEDS = st.integers(0, 2**32 - 1)


def matrix(seed: int, rows: int, columns: int, dtype: type = np.float32) -> np.ndarray:
    """Normal weights with outliers, rows of very different sizes, and zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-3, 3, (rows, 1))
    values[rng.random((rows, columns)) < 0.05] *= 20
    values[rng.random((rows, columns)) < 0.1] = 0
    return np.abs(values).astype(dtype) if seed % 5 == 0 else values.astype(dtype)


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
    got = round_rows(weights.astype(np.float32), scheme, np.dtype(dtype), "w")
    np.testing.assert_array_equal(got.scales, scales)
    np.testing.assert_array_equal(got.codes, packed)
    if not symmetric:
        np.testing.assert_array_equal(got.zeros, zeros)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 150))
def test_nf4_is_that_of_onnxruntimes_quantiser(seed: int, rows: int, columns: int) -> None:
    weights = matrix(seed, rows, columns)
    packed = np.zeros((weights.size + 1) // 2, np.uint8)
    peaks = np.zeros(-(-weights.size // 64), np.float32)
    quantize_matmul_bnb4(packed, weights, peaks, 64, 1, rows, columns)
    got_peaks, got = pack_nf4(weights.reshape(-1))
    np.testing.assert_array_equal(got_peaks, peaks)
    np.testing.assert_array_equal(got, packed)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(1, 200))
def test_channels_are_those_of_quantize_dynamic(seed: int, rows: int, columns: int) -> None:
    weights = matrix(seed, rows, columns)
    weights[0] *= seed % 3 != 0  # sometimes a channel of zeros
    signed, unsigned = int8_channels(weights), uint8_channels(weights)
    for row in range(rows):
        zero, scale, codes = quantize_data(weights[row], onnx.TensorProto.INT8, symmetric=True)
        assert (zero, scale) == (0, signed[1][row])
        np.testing.assert_array_equal(codes, signed[0][row])
        zero, scale, codes = quantize_data(weights[row], onnx.TensorProto.UINT8, symmetric=False)
        assert (zero, scale) == (unsigned[2][row], unsigned[1][row])
        np.testing.assert_array_equal(codes, unsigned[0][row])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_of_zeros_are_exact(bits: int, symmetric: bool) -> None:
    scheme = BlockScheme("any", bits, 32, symmetric)
    got = round_rows(np.zeros((2, 64), np.float32), scheme, np.dtype(np.float16), "w")
    assert not got.scales.any()
    assert not np.signbit(got.scales).any()


def test_a_scale_too_large_for_fp16_is_refused() -> None:
    weights = np.full((1, 32), 1e6, np.float32)
    with pytest.raises(InputError, match="w, scale of a block"):
        round_rows(weights, BlockScheme("any", 4, 32, True), np.dtype(np.float16), "w")
