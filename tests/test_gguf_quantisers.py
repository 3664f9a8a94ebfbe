"""Our block quantisers give the very bytes of ggml's C code and of gguf-py, or refuse."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeproof.errors import InputError
from export.gguf.storage import FOREIGN, GROUP_BLOCKS, LAYOUTS, TYPES
from export.rounding import Rounder
from export.rounding.registry import METHODS, NEAREST
from export.targets import Target

pytestmark = pytest.mark.numbers

BLOCK_TYPES = [
    name for name, entry in TYPES.items() if entry.block_size > 1 and name not in FOREIGN
]
# The largest magnitudes whose scale (and minimum) fit float16.
LARGEST = {"Q8_0": 8.3e6, "Q5_0": 1e6, "Q5_1": 65000.0, "Q4_0": 5.2e5, "Q4_1": 65000.0}
COUNT = 96  # three blocks
MANY = settings(max_examples=100, deadline=None)

Quantise = Callable[[np.ndarray, str], bytes]


@pytest.fixture(scope="module")
def ggml_c() -> Quantise:
    """`ggml_quantize_chunk` of the llama.cpp that is installed with llama-cpp-python."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder, "lib").glob("*ggml-base.*")]
    assert found, "llama-cpp-python, which `make test` installs, has no ggml-base library"
    function = ctypes.CDLL(str(found[0])).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]

    def quantise(values: np.ndarray, name: str) -> bytes:
        out = ctypes.create_string_buffer(TYPES[name].nbytes(values.shape))
        source = np.ascontiguousarray(values, np.float32)
        written = function(TYPES[name].type_id, source.ctypes.data, out, 0, 1, values.size, None)
        assert written == len(out)
        return out.raw

    return quantise


def encode(name: str, rows: np.ndarray, tensor: str = "w") -> np.ndarray:
    """Rows as the type stores them, rounded by the default method."""
    return TYPES[name].encode(rows, Target(tensor, (), rows.shape), Rounder(METHODS[NEAREST]))


def within(values: np.ndarray, name: str) -> np.ndarray:
    """Finite values, those beyond the type's range scaled into it."""
    values = np.where(np.isfinite(values), values, np.float32(0))
    return np.where(np.abs(values) > LARGEST[name], np.float32(LARGEST[name]), values)


def any_bits() -> st.SearchStrategy[np.ndarray]:
    """Every float32 there is: subnormals, huge values, both zeros."""
    bits = arrays(np.uint32, COUNT, elements=st.integers(0, 2**32 - 1))
    return bits.map(lambda array: array.view(np.float32))


def ties() -> st.SearchStrategy[np.ndarray]:
    """Blocks full of equal magnitudes, zeros of both signs, and values halfway between codes."""
    steps = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -3.5, 7.5, -7.5, 8.0, -8.0, 63.5, 127.0, -127.0]
    scales = st.sampled_from([1.0, 0.1, 2.0**-20, 1e-41, 3000.0])
    values = arrays(np.float32, COUNT, elements=st.sampled_from(steps))
    return st.builds(lambda array, scale: array * np.float32(scale), values, scales)


def weights() -> st.SearchStrategy[np.ndarray]:
    """Normally distributed, as trained weights are."""
    return st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).standard_normal(COUNT).astype(np.float32) * 0.05
    )


@pytest.mark.parametrize("name", BLOCK_TYPES)
@MANY
@example(values=np.zeros(COUNT, np.float32))
@example(values=-np.zeros(COUNT, np.float32))
@example(values=np.full(COUNT, 0.49999997, np.float32))
@example(values=np.full(COUNT, 1e-45, np.float32))
@given(values=any_bits() | ties() | weights())
def test_bytes_equal_ggml_c_code(ggml_c: Quantise, name: str, values: np.ndarray) -> None:
    values = within(values, name)
    assert encode(name, values.reshape(1, -1)).tobytes() == ggml_c(values, name)


@pytest.mark.parametrize("name", BLOCK_TYPES)
@MANY
@given(values=ties() | weights())
def test_bytes_equal_gguf_py(name: str, values: np.ndarray) -> None:
    values = within(values, name)
    values = np.where(np.abs(values) < 1e-30, np.float32(1e-3), values)  # gguf-py differs at -0.0
    expected = quants.quantize(values.reshape(1, -1), GGMLQuantizationType[name])
    assert encode(name, values.reshape(1, -1)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", BLOCK_TYPES)
@pytest.mark.parametrize("blocks", [3, GROUP_BLOCKS - 1, GROUP_BLOCKS + 1])
def test_groups_of_rows_join_without_a_seam(name: str, blocks: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3 * GROUP_BLOCKS // blocks, blocks * 32), dtype=np.float32)
    expected = quants.quantize(rows, GGMLQuantizationType[name])
    assert encode(name, rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", BLOCK_TYPES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_sources_are_widened_exactly(name: str, dtype: type) -> None:
    rows = np.random.default_rng(2).standard_normal((5, 64)).astype(dtype)
    wide = rows.astype(np.float32)
    assert np.array_equal(encode(name, rows), encode(name, wide))


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_numbers_of_a_type_are_ggml_numbers(name: str) -> None:
    entry = LAYOUTS[name]
    kind = GGMLQuantizationType[name]
    assert (entry.type_id, (entry.block_size, entry.block_bytes)) == (
        kind.value,
        GGML_QUANT_SIZES[kind],
    )


@pytest.mark.parametrize("name", [*BLOCK_TYPES, "F16"])
@pytest.mark.parametrize("value", [3e38, -3e38, 1e7])
def test_a_scale_that_overflows_is_refused(name: str, value: float) -> None:
    rows = np.ones((4, 64), np.float32)
    rows[2, 40] = value
    with pytest.raises(InputError, match="tensor up_proj"):
        encode(name, rows, "up_proj")


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_rows_that_do_not_divide_into_blocks_are_refused(name: str) -> None:
    assert not TYPES[name].fits((4, 33))
    with pytest.raises(InputError, match=f"{name} stores blocks of 32 values; rows of 33"):
        encode(name, np.zeros((4, 33), np.float32))
