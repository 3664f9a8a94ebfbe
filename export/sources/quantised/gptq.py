"""GPTQ: int32 words along the inputs, a scale and a zero point for each group and output.

Source: https://github.com/ModelCloud/GPTQModel, `nn_modules/qlinear/__init__.py`
(`dequantize_weight`) and `utils/model.py` (`convert_gptq_v1_to_v2_format_module`), which
transformers loads such checkpoints with:

    qweight int32 [in × bits / 32, out]   code of input i: bits i × bits … of its output's column
    qzeros  int32 [groups, out × bits / 32]
    scales  float [groups, out]
    g_idx   int32 [in]                    the group of each input; without it, i // group_size
    weight[o, i] = scales[g_idx[i], o] × (code[i, o] − zero[g_idx[i], o])

Version 1 (`checkpoint_format` "gptq", the usual one) stores zero − 1: each int32 word of qzeros
gets 1 added in every field, as one sum, so that a field that overflows carries as it borrowed when
it was stored. Version 2 ("gptq_v2") stores zero. The library multiplies in float16; here the
product is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.sources.quantised.arithmetic import affine, unpacked
from export.sources.quantised.reader import Matrix, Reading, Shape, stem
from export.sources.quantised.settings import WHERE, whole, word
from export.sources.quantised.tensors import INT32, INT64, Tensors

BITS = (4, 8)
VERSIONS = {"gptq": 1, "gptq_v2": 2}
ORDERED = (
    "activation order: neighbouring inputs have scales of their own, so the values lie on no grid"
    " of blocks, and exports of few bits round them once more"
)


class Gptq:
    """See `export.sources.quantised.reader.Reader`."""

    def read(
        self, settings: Mapping[str, Any], tensors: Tensors, shapes: Mapping[str, Shape]
    ) -> Reading:
        """See `Reader`."""
        bits = whole(settings, "bits")
        size = whole(settings, "group_size", 128)
        form = word(settings, ("checkpoint_format", "format"), "gptq")
        if settings.get("is_marlin_format"):
            form = "marlin"
        if form not in VERSIONS:
            raise InputError(
                f"{WHERE}: GPTQ in the format {form!r} is not read; save it again as gptq"
                f" (gptqmodel), or export the model that it was made from"
            )
        if bits not in BITS:
            raise InputError(
                f"{WHERE}: GPTQ of {bits} bits is not read, only of 4 and 8; export the model that"
                " it was made from"
            )
        if size < 1 and size != -1:
            raise InputError(f"{WHERE}: group_size must be positive or -1, it is {size}")
        for name in shapes if settings.get("desc_act") is True else ():
            if f"{stem(name)}.qweight" in tensors:
                tensors.require(f"{stem(name)}.g_idx", f"{stem(name)}.qweight", (INT32, INT64))
        found = {
            name: _matrix(tensors, stem(name), shape, bits, size, VERSIONS[form])
            for name, shape in shapes.items()
            if f"{stem(name)}.qweight" in tensors
        }
        ordered = any(order for _, order in found.values())
        groups = "one group" if size == -1 else f"groups of {size}"
        kind = "activation-ordered" if ordered else "in order"
        return Reading(
            f"GPTQ version {VERSIONS[form]}, {bits} bits, {groups}, {kind}",
            {name: matrix for name, (matrix, _) in found.items()},
            notes=(ORDERED,) if ordered else (),
        )


def _matrix(
    tensors: Tensors, at: str, shape: Shape, bits: int, size: int, version: int
) -> tuple[Matrix, bool]:
    """The weight, and whether its inputs are in an order of their own."""
    (out, inputs), pack = shape, 32 // bits
    codes = f"{at}.qweight"
    if inputs % pack or out % pack:
        raise tensors.wrong(codes, f"cannot have {out} × {inputs} values of {bits} bits")
    tensors.require(codes, codes, (INT32,), (inputs // pack, out))
    groups = 1 if size == -1 else -(-inputs // size)
    scales = tensors.scales(f"{at}.scales", codes, (groups, out))
    zeros = tensors.require(f"{at}.qzeros", codes, (INT32,), (groups, out // pack))
    order = f"{at}.g_idx"
    index = np.arange(inputs) // (inputs if size == -1 else size)
    if order in tensors:
        index = _order(tensors, order, codes, inputs, groups)
    parts = [name for name in (codes, scales, zeros, order) if name in tensors]
    even = inputs % groups == 0 and (index == np.arange(inputs) // (inputs // groups)).all()
    ones = np.uint32(sum(1 << at for at in range(0, 32, bits)) if version == 1 else 0)

    def rows(start: int, stop: int) -> np.ndarray:
        words = tensors.array(zeros)[:, start // pack : -(-stop // pack)]
        shifted = np.ascontiguousarray(words).view(np.uint32) + ones
        return affine(
            unpacked(tensors.array(codes)[:, start:stop].T, bits),
            tensors.array(scales)[:, start:stop].T.astype(np.float32),
            unpacked(shifted, bits)[:, : stop - start].T,
            None if even else index,
        )

    return Matrix(shape, tuple(parts), rows, step=pack), bool((np.diff(index) < 0).any())


def _order(tensors: Tensors, name: str, codes: str, inputs: int, groups: int) -> np.ndarray:
    """The group of each input, as far as it is one."""
    tensors.require(name, codes, (INT32, INT64), (inputs,))
    index = tensors.array(name).astype(np.int64)
    if index.size and not 0 <= index.min() <= index.max() < groups:
        wrong = int(np.flatnonzero((index < 0) | (index >= groups))[0])
        raise tensors.wrong(
            name, f"names group {index[wrong]} for input {wrong}; there are {groups}"
        )
    return index
