"""bitsandbytes: NF4 and FP4 with a maximum for each block of the flattened weight, and LLM.int8().

Source: https://github.com/bitsandbytes-foundation/bitsandbytes, `functional.py` (`QuantState`,
`dequantize_4bit`), `backends/default/ops.py`, `_ops.py` (`int8_vectorwise_dequant`):

    weight                     bytes [out × in / 2, 1]: value 2k is the upper half of byte k; they
                               may be seen as another type (`bnb_4bit_quant_storage`)
    weight.absmax              float32 [blocks]; with double quantisation bytes
    weight.quant_map           float32 [16]: the levels of the codes
    weight.quant_state.bitsandbytes__nf4 (or fp4)   JSON: blocksize, shape, dtype, nested_offset, …
    weight.nested_absmax, weight.nested_quant_map   float32 [blocks / nested_blocksize], [256]
    absmax[b] = nested_quant_map[code[b]] × nested_absmax[b // nested_blocksize] + nested_offset
    weight = level of the code × absmax of its block

and for 8 bits, `weight` int8 [out, in] and `SCB` float32 [out]:

    weight[o, i] = code[o, i] × SCB[o] × 0.007874015718698502

Each step is rounded to float32, as in the library, which then rounds 4-bit weights to the type that
they had (`dtype` of the state); that is not done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.checkpoints.json_object import parse_object
from export.sources.quantised.reader import Matrix, Reading, Shape, stem
from export.sources.quantised.settings import is_whole
from export.sources.quantised.tensors import FLOAT8, INT8, UINT8, Tensors

FLOAT32 = np.dtype("<f4")
# `get_4bit_type`: quantiles of a normal distribution; 3-bit floats with a sign, of 12.
LEVELS = {
    "nf4": np.array(
        [
            -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
            -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
            0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
            0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
        ],
        np.float32,
    ),
    "fp4": np.array(
        [sign * level / 12 for sign in (1, -1) for level in (0, 0.0625, 8, 12, 4, 6, 2, 3)],
        np.float32,
    ),
}  # fmt: skip
STATE = "quant_state.bitsandbytes__"
SAME_LEVEL = 1e-6  # older versions computed them
PER_127 = np.float32(7.874015718698502e-3)
ACTIVATIONS = "LLM.int8() also quantises activations; here they are computed in float"


class BitsAndBytes:
    """See `export.sources.quantised.reader.Reader`."""

    def read(
        self, settings: Mapping[str, Any], tensors: Tensors, shapes: Mapping[str, Shape]
    ) -> Reading:
        """See `Reader`."""
        found: dict[str, Matrix] = {}
        forms: list[str] = []
        unused = {name for name in tensors if name.endswith(".weight_format")}
        for name, shape in shapes.items():
            if name not in tensors:
                continue
            kind = next((kind for kind in LEVELS if f"{name}.{STATE}{kind}" in tensors), None)
            if kind is not None:
                found[name] = _four_bits(tensors, name, shape, kind)
                forms.append(f"bitsandbytes {kind}")
            elif tensors.dtype(name) == INT8:
                found[name] = _eight_bits(tensors, name, shape)
                forms.append("bitsandbytes int8")
            elif tensors.dtype(name) == UINT8:
                wanted = f"{STATE}{settings.get('bnb_4bit_quant_type', 'nf4')}"
                raise tensors.wrong(name, f"is quantised, but {name}.{wanted} is missing")
        return Reading(
            ", ".join(dict.fromkeys(forms)) or "bitsandbytes",
            found,
            frozenset(unused),
            (ACTIVATIONS,) if "bitsandbytes int8" in forms else (),
        )


def _eight_bits(tensors: Tensors, name: str, shape: Shape) -> Matrix:
    tensors.require(name, name, (INT8,), shape)
    scales = tensors.scales(f"{stem(name)}.SCB", name, (shape[0],), dtypes=(FLOAT32,))
    order = f"{stem(name)}.weight_format"
    if order in tensors and np.asarray(tensors.array(order)).any():
        raise tensors.wrong(order, "is not 0: only weights in rows are read")

    def rows(start: int, stop: int) -> np.ndarray:
        values = tensors.array(name)[start:stop].astype(np.float32)
        with np.errstate(over="ignore"):
            values *= tensors.array(scales)[start:stop, None]
        return np.asarray(values * PER_127)

    return Matrix(shape, (name, scales), rows)


def _four_bits(tensors: Tensors, name: str, shape: Shape, kind: str) -> Matrix:
    count = shape[0] * shape[1]
    packed = -(-count // 2)
    if tensors.array(name).nbytes != packed or tensors.dtype(name) == FLOAT8:
        raise tensors.wrong(
            name, f"has {tensors.array(name).nbytes} bytes, {packed} hold {list(shape)} in 4 bits"
        )
    state_name = tensors.require(f"{name}.{STATE}{kind}", name, (UINT8,))
    state = _state(tensors, state_name)
    if state.get("quant_type") != kind or state.get("shape") != list(shape):
        raise tensors.wrong(
            state_name,
            f"says {state.get('quant_type')!r} of shape {state.get('shape')!r},"
            f" config.json asks for {list(shape)}",
        )
    size = _positive(tensors, state_name, state, "blocksize")
    levels = tensors.scales(f"{name}.quant_map", name, (16,), dtypes=(FLOAT32,))
    if not np.allclose(tensors.array(levels), LEVELS[kind], rtol=0, atol=SAME_LEVEL):
        raise tensors.wrong(levels, f"has not the levels of {kind}; the file is damaged")
    maxima = _maxima(tensors, name, state_name, state, -(-count // size))

    def rows(start: int, stop: int) -> np.ndarray:
        first, last = start * shape[1], stop * shape[1]
        data = tensors.array(name).reshape(-1).view(np.uint8)[first // 2 : -(-last // 2)]
        codes = np.empty(2 * data.size, np.uint8)
        codes[::2], codes[1::2] = data >> 4, data & 15
        codes = codes[first % 2 : first % 2 + last - first]
        of_blocks = maxima.of(first // size, -(-last // size)).repeat(size)
        with np.errstate(over="ignore"):
            values = LEVELS[kind][codes] * of_blocks[first % size : first % size + last - first]
        return np.asarray(values.reshape(stop - start, shape[1]))

    return Matrix(shape, (name, state_name, levels, *maxima.parts), rows)


@dataclass(frozen=True)
class _Maxima:
    """The tensors that maxima of blocks come from; blocks → float32 [their number]."""

    parts: tuple[str, ...]
    of: Callable[[int, int], np.ndarray]


def _maxima(
    tensors: Tensors, name: str, state_name: str, state: Mapping[str, Any], blocks: int
) -> _Maxima:
    stored, nested = f"{name}.absmax", f"{name}.nested_absmax"
    if nested not in tensors and "nested_blocksize" not in state:
        tensors.scales(stored, name, (blocks,), dtypes=(FLOAT32,))
        return _Maxima((stored,), lambda first, last: tensors.array(stored)[first:last])
    tensors.require(stored, name, (UINT8,), (blocks,))
    size = _positive(tensors, state_name, state, "nested_blocksize")
    offset = state.get("nested_offset")
    if not isinstance(offset, (int, float)) or not np.isfinite(offset):
        raise tensors.wrong(state_name, f"says nested_offset {offset!r}, which is no number")
    tensors.scales(nested, name, (-(-blocks // size),), dtypes=(FLOAT32,))
    levels = tensors.scales(f"{name}.nested_quant_map", name, (256,), dtypes=(FLOAT32,))

    def of(first: int, last: int) -> np.ndarray:
        scales = tensors.array(nested)[np.arange(first, last) // size]
        with np.errstate(over="ignore", invalid="ignore"):
            maxima = tensors.array(levels)[tensors.array(stored)[first:last]] * scales
            return np.asarray(maxima + np.float32(offset))

    return _Maxima((stored, nested, levels), of)


def _state(tensors: Tensors, name: str) -> Mapping[str, Any]:
    try:
        return parse_object(tensors.array(name).tobytes())
    except ValueError:
        raise tensors.wrong(name, "is not the JSON that bitsandbytes stores; damaged") from None


def _positive(tensors: Tensors, where: str, state: Mapping[str, Any], key: str) -> int:
    value = state.get(key)
    if not is_whole(value) or value < 1:
        raise tensors.wrong(where, f"says {key} {value!r}, which is no size of a block")
    return value
