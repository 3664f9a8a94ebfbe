"""Tiny quantised checkpoints, and what their bits mean, from the formats' definitions.

Nothing here is shared with the readers: codes are packed and unpacked one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.tiny import change_json, make_checkpoint, write_weights

Stored = dict[str, np.ndarray]
# A weight's name without ".weight", its values → the tensors that it is stored as.
Store = Callable[[str, np.ndarray], Stored]
# The tensors of a file, a weight's name without ".weight", output, input → its value.
Value = Callable[[Mapping[str, np.ndarray], str, int, int], float]
BF16 = ml_dtypes.bfloat16
DTYPES = {
    "F32": np.float32, "F16": np.float16, "BF16": BF16, "I32": np.int32, "I64": np.int64,
    "I8": np.int8, "U8": np.uint8, "F8_E4M3": ml_dtypes.float8_e4m3fn,
}  # fmt: skip
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = tuple(np.float32(sign * x / 12) for sign in (1, -1) for x in (0, 0.0625, 8, 12, 4, 6, 2, 3))


def packed(fields: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> np.ndarray:
    """Fields [n, m] → int32 words [n, m × bits / 32]; field k of a word is its `order[k]`th."""
    count = 32 // bits
    words = np.zeros((len(fields), -(-fields.shape[1] // count)), np.uint32)
    for row, line in enumerate(fields.tolist()):
        for at in range(words.shape[1]):
            part = [*line[at * count : (at + 1) * count], *[0] * count][:count]
            if order:
                part = [part[index] for index in order]
            words[row, at] = sum(
                (value % (1 << bits)) << (bits * k) for k, value in enumerate(part)
            )
    return words.view(np.int32)


def field(word: int, at: int, bits: int) -> int:
    return (int(word) >> (bits * at)) & ((1 << bits) - 1)


def rounded(
    values: np.ndarray, bits: int, size: int, dtype: Any, *, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes from 0 on [out, in], scales [out, groups], zero points [out, groups]."""
    groups = values.reshape(len(values), -1, size).astype(np.float64)
    most = (1 << bits) - 1
    if symmetric:
        scales = (np.abs(groups).max(-1) / (most // 2)).astype(dtype)
        zeros = np.full(scales.shape, (most + 1) // 2)
    else:
        low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
        scales = ((high - low) / most).astype(dtype)
        zeros = np.clip(np.rint(-low / scales.astype(np.float64)), 1, most).astype(int)
    codes = np.rint(groups / scales.astype(np.float64)[..., None]) + zeros[..., None]
    return np.clip(codes, 0, most).astype(int).reshape(values.shape), scales, zeros


def gptq(bits: int, size: int, *, symmetric: bool, version: int, ordered: bool = False) -> Store:
    def store(name: str, values: np.ndarray) -> Stored:
        width = size if size > 0 else values.shape[1]
        order = np.arange(values.shape[1])
        if ordered:
            order = np.random.default_rng(7).permutation(order)
        codes, scales, zeros = rounded(
            values[:, order], bits, width, np.float16, symmetric=symmetric
        )
        back = np.argsort(order)
        return {
            f"{name}.qweight": packed(codes[:, back], bits).T.copy(),
            f"{name}.qzeros": packed(zeros.T - (version == 1), bits),
            f"{name}.scales": scales.T.copy(),
            f"{name}.g_idx": (back // width).astype(np.int32),
        }

    return store


def gptq_value(bits: int, version: int) -> Value:
    def value(found: Mapping[str, np.ndarray], name: str, out: int, at: int) -> float:
        pack = 32 // bits
        group = int(found[f"{name}.g_idx"][at])
        code = field(found[f"{name}.qweight"][at // pack, out], at % pack, bits)
        zero = field(found[f"{name}.qzeros"][group, out // pack], out % pack, bits)
        return float(found[f"{name}.scales"][group, out]) * (code - zero - (version == 1))

    return value


def awq(size: int) -> Store:
    def store(name: str, values: np.ndarray) -> Stored:
        codes, scales, zeros = rounded(values, 4, size, np.float16, symmetric=False)
        return {
            f"{name}.qweight": packed(codes.T, 4, AWQ_ORDER),
            f"{name}.qzeros": packed(zeros.T, 4, AWQ_ORDER),
            f"{name}.scales": scales.T.copy(),
        }

    return store


def awq_value(size: int) -> Value:
    def value(found: Mapping[str, np.ndarray], name: str, out: int, at: int) -> float:
        place, group = AWQ_ORDER.index(out % 8), at // size
        code = field(found[f"{name}.qweight"][at, out // 8], place, 4)
        zero = field(found[f"{name}.qzeros"][group, out // 8], place, 4)
        return float(found[f"{name}.scales"][group, out]) * (code - zero)

    return value


def compressed(bits: int, size: int, *, symmetric: bool, words: bool, dtype: Any = BF16) -> Store:
    """Integers: in words, or as int8; `size` 0 is a scale per channel."""

    def store(name: str, values: np.ndarray) -> Stored:
        width = size or values.shape[1]
        codes, scales, zeros = rounded(values, bits, width, dtype, symmetric=symmetric)
        middle = 1 << (bits - 1)
        found: Stored = {f"{name}.weight_scale": scales}
        if words:
            found[f"{name}.weight_packed"] = packed(codes, bits)
            found[f"{name}.weight_shape"] = np.array(values.shape)
        else:
            found[f"{name}.weight"] = (codes - middle).astype(np.int8)
        if not symmetric:
            found[f"{name}.weight_zero_point"] = (
                packed(zeros.T, bits).T.copy() if words else (zeros - middle).astype(np.int8)
            )
        return found

    return store


def compressed_value(bits: int, size: int) -> Value:
    def value(found: Mapping[str, np.ndarray], name: str, out: int, at: int) -> float:
        pack, middle = 32 // bits, 1 << (bits - 1)
        if f"{name}.weight" in found:
            code = int(found[f"{name}.weight"][out, at])
        else:
            word = found[f"{name}.weight_packed"][out, at // pack]
            code = field(word, at % pack, bits) - middle
        group, zero = at // size if size else 0, 0
        zeros = found.get(f"{name}.weight_zero_point")
        if zeros is not None and zeros.dtype == np.int8:
            zero = int(zeros[out, group])
        elif zeros is not None:
            zero = field(zeros[out // pack, group], out % pack, bits) - middle
        return float(found[f"{name}.weight_scale"][out, group]) * (code - zero)

    return value


def float8(block: tuple[int, int] | None, ending: str, dtype: Any = np.float32) -> Store:
    """A scale for each block, or with None for each output."""

    def store(name: str, values: np.ndarray) -> Stored:
        rows, columns = block or (1, values.shape[1])
        grid = (-(-values.shape[0] // rows), -(-values.shape[1] // columns))
        scales = np.empty(grid, dtype)
        codes = np.empty(values.shape, ml_dtypes.float8_e4m3fn)
        for i, j in np.ndindex(grid):
            part = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            scales[i, j] = np.abs(values[part]).max() / 448
            codes[part] = (values[part] / np.float32(scales[i, j])).astype(codes.dtype)
        return {f"{name}.weight": codes, f"{name}.{ending}": scales}

    return store


def float8_value(block: tuple[int, int] | None, ending: str) -> Value:
    def value(found: Mapping[str, np.ndarray], name: str, out: int, at: int) -> float:
        scales = found[f"{name}.{ending}"]
        i, j = (out // block[0], at // block[1]) if block else (out, 0)
        scale = scales.reshape(-1)[0] if scales.size == 1 else scales[i, j]
        return float(np.float32(found[f"{name}.weight"][out, at]) * np.float32(scale))

    return value


def per_tensor(ending: str, shape: tuple[int, ...], dtype: Any) -> Store:
    def store(name: str, values: np.ndarray) -> Stored:
        scale = np.full(shape, np.abs(values).max() / 448, dtype)
        codes = (values / np.float32(scale.reshape(-1)[0])).astype(ml_dtypes.float8_e4m3fn)
        return {f"{name}.weight": codes, f"{name}.{ending}": scale}

    return store


def four_bits(kind: str, *, double: bool, size: int = 64, storage: Any = np.uint8) -> Store:
    """As bitsandbytes stores them."""
    levels = np.array(NF4 if kind == "nf4" else FP4, np.float32)

    def store(name: str, values: np.ndarray) -> Stored:
        blocks = values.reshape(-1, size)
        maxima = np.abs(blocks).max(1).astype(np.float32)
        state: dict[str, Any] = {
            "quant_type": kind,
            "blocksize": size,
            "dtype": "bfloat16",
            "shape": list(values.shape),
        }
        found: Stored = {f"{name}.weight.quant_map": levels}
        if double:
            offset, code = float(maxima.mean()), np.linspace(-1, 1, 256).astype(np.float32)
            rest = (maxima - np.float32(offset)).astype(np.float32)
            nested = np.array(
                [np.abs(part).max() for part in np.split(rest, range(256, len(rest), 256))],
                np.float32,
            )
            bytes_ = np.array(
                [np.abs(code - x / nested[i // 256]).argmin() for i, x in enumerate(rest)], np.uint8
            )
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            found |= {
                f"{name}.weight.absmax": bytes_,
                f"{name}.weight.nested_absmax": nested,
                f"{name}.weight.nested_quant_map": code,
            }
        else:
            found[f"{name}.weight.absmax"] = maxima
        quotients = (blocks / maxima[:, None]).reshape(-1)
        codes = np.abs(quotients[:, None] - levels).argmin(1).astype(np.uint8)
        data = codes[::2] << 4 | codes[1::2]
        text = json.dumps(state).encode()
        found[f"{name}.weight"] = data.view(storage).reshape(-1, 1)
        found[f"{name}.weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, np.uint8)
        return found

    return store


def four_bits_value(kind: str) -> Value:
    def value(found: Mapping[str, np.ndarray], name: str, out: int, at: int) -> float:
        state = json.loads(
            found[f"{name}.weight.quant_state.bitsandbytes__{kind}"].tobytes().decode()
        )
        index = out * state["shape"][1] + at
        byte = int(found[f"{name}.weight"].reshape(-1).view(np.uint8)[index // 2])
        level = (NF4 if kind == "nf4" else FP4)[byte & 15 if index % 2 else byte >> 4]
        block = index // state["blocksize"]
        maximum = found[f"{name}.weight.absmax"][block]
        if "nested_blocksize" in state:
            nested = found[f"{name}.weight.nested_absmax"][block // state["nested_blocksize"]]
            maximum = found[f"{name}.weight.nested_quant_map"][maximum] * nested
            maximum += np.float32(state["nested_offset"])
        return float(np.float32(level) * np.float32(maximum))

    return value


def eight_bits(name: str, values: np.ndarray) -> Stored:
    """As LLM.int8() stores them."""
    maxima = np.abs(values).max(1).astype(np.float32)
    return {
        f"{name}.weight": np.rint(values / maxima[:, None] * 127).astype(np.int8),
        f"{name}.SCB": maxima,
        f"{name}.weight_format": np.array(0, np.uint8),
    }


def eight_bits_value(found: Mapping[str, np.ndarray], name: str, out: int, at: int) -> float:
    product = np.float32(found[f"{name}.weight"][out, at]) * found[f"{name}.SCB"][out]
    return float(product * np.float32(0.007874015718698502))


def groups(**weights: Any) -> dict[str, Any]:
    """`quantization_config` of compressed-tensors, for one group."""
    form = weights.pop("format")
    inputs = weights.pop("inputs", None)
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


def make_quantised(
    folder: Path,
    settings: Mapping[str, Any],
    store: Store,
    *,
    shards: int = 1,
    only: Collection[str] = (),
    **changes: Any,
) -> Path:
    """A tiny checkpoint whose projections, or `only` these, are stored so; the rest is float16."""
    make_checkpoint(folder, dtype="F16", torch_dtype="float16", **changes)
    change_json(folder / "config.json", quantization_config=dict(settings))
    found: Stored = {}
    for name, values in stored(folder).items():
        at = name.removesuffix(".weight")
        if at in only or (not only and at.endswith("_proj")):
            found |= store(at, values.astype(np.float32))
        else:
            found[name] = values
    (folder / "model.safetensors").unlink()
    write_weights(folder, found, shards)
    return folder


def stored(folder: Path) -> Stored:
    """All tensors of a folder; NumPy's loader does not know 8-bit floats."""
    found: Stored = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                array = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
                found[name] = array.reshape(entry["shape"])
    return found
