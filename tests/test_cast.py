"""Casting keeps every value that fits, and refuses the tensor whose value does not."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeproof.errors import InputError
from export.rounding.cast import BFLOAT16, FLOAT16, FLOAT32, cast

pytestmark = pytest.mark.numbers

TYPES = [FLOAT32, FLOAT16, BFLOAT16]
IDS = [dtype.name for dtype in TYPES]
BITS = arrays(np.uint32, st.integers(1, 40), elements=st.integers(0, 2**32 - 1))


def finite_floats(bits: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Any finite bit patterns of the type, subnormals and extremes included."""
    raw = bits if dtype == FLOAT32 else (bits >> 16).astype(np.uint16)
    values = raw.view(dtype)
    return np.where(np.isfinite(values), values, np.zeros_like(values))


@pytest.mark.parametrize("target", TYPES, ids=IDS)
@pytest.mark.parametrize("source", TYPES, ids=IDS)
@given(bits=BITS)
def test_cast_rounds_to_nearest_or_refuses(
    bits: np.ndarray, source: np.dtype[Any], target: np.dtype[Any]
) -> None:
    values = finite_floats(bits, source)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float32).astype(target)
    if np.isfinite(expected).all():
        result = cast(values, target, "w")
        assert result.dtype == target
        assert result.tobytes() == expected.tobytes()
    else:
        with pytest.raises(InputError, match="tensor w"):
            cast(values, target, "w")


@given(bits=BITS)
def test_bfloat16_rounds_half_to_even_on_the_bits(bits: np.ndarray) -> None:
    values = finite_floats(bits, FLOAT32)
    wide = values.view(np.uint32).astype(np.uint64)
    expected = ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)
    if ((expected & 0x7F80) != 0x7F80).all():
        assert np.array_equal(cast(values, BFLOAT16, "w").view(np.uint16), expected)


@pytest.mark.parametrize("value", [65520.0, -65520.0, 70000.0, -3e38])
@pytest.mark.parametrize("source", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_overflow_names_the_tensor_and_its_peak(value: float, source: np.dtype[Any]) -> None:
    values = np.ones((3, 5), source)
    values[1, 2] = value
    peak = float(np.abs(values.astype(np.float32)).max())
    with pytest.raises(InputError) as caught:
        cast(values, FLOAT16, "model.norm.weight")
    message = str(caught.value)
    assert "model.norm.weight" in message and f"{peak:.6g}" in message and "\n" not in message


def test_largest_values_that_round_down_are_kept() -> None:
    values = np.array([65504.0, 65519.99, -65519.99], np.float32)
    assert cast(values, FLOAT16, "w").tolist() == [65504.0, 65504.0, -65504.0]


@pytest.mark.parametrize("dtype", TYPES, ids=IDS)
def test_right_dtype_is_not_copied(dtype: np.dtype[Any]) -> None:
    values = np.zeros((4, 6), dtype)
    values.flags.writeable = False
    assert np.shares_memory(cast(values, dtype, "w"), values)


@pytest.mark.parametrize("target", TYPES, ids=IDS)
def test_result_is_contiguous_and_keeps_the_shape(target: np.dtype[Any]) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6).T
    result = cast(values, target, "w")
    assert result.flags.c_contiguous
    assert np.array_equal(result.astype(np.float32), values)
    assert cast(np.zeros((0, 4), np.float32), target, "w").shape == (0, 4)
    assert cast(np.float32(2).reshape(()), target, "w").shape == ()


def test_infinities_of_the_source_are_not_called_overflow() -> None:
    values = np.array([np.inf, -np.inf, 1.0], np.float32)
    assert cast(values, FLOAT16, "w").astype(np.float32).tolist() == values.tolist()
    assert np.isinf(cast(values.astype(ml_dtypes.bfloat16), FLOAT16, "w")[:2]).all()
