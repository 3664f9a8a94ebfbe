"""AWQ as AutoAWQ's GEMM kernel stores it: int32 words along the outputs, in an order of their own.

Source: https://github.com/casper-hansen/AutoAWQ, `awq/utils/packing_utils.py` and
`modules/linear/gemm.py`; the same in GPTQModel's `quantization/awq/utils/packing_utils.py`, which
transformers loads such checkpoints with:

    qweight int32 [in, out / 8], qzeros int32 [groups, out / 8], scales float [groups, out]
    field k (bits 4k …) of a word has its output ORDER[k]
    weight[o, i] = scales[i // group_size, o] × (code[i, o] − zero[i // group_size, o])

The library multiplies in float16; here the product is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.sources.quantised.arithmetic import affine, unpacked
from export.sources.quantised.reader import Matrix, Reading, Shape, stem
from export.sources.quantised.settings import WHERE, whole, word
from export.sources.quantised.tensors import INT32, Tensors

BITS, PACK = 4, 8
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PLACE = np.argsort(ORDER)  # the field of each output


class Awq:
    """See `export.sources.quantised.reader.Reader`."""

    def read(
        self, settings: Mapping[str, Any], tensors: Tensors, shapes: Mapping[str, Shape]
    ) -> Reading:
        """See `Reader`."""
        bits = whole(settings, "bits", whole(settings, "w_bit", BITS))
        size = whole(settings, "group_size", whole(settings, "q_group_size", 128))
        form = word(settings, ("version", "format"), "gemm")
        if form != "gemm" or word(settings, ("backend",), "") == "llm-awq" or bits != BITS:
            raise InputError(
                f"{WHERE}: AWQ of {bits} bits in the format {form!r} is not read, only 4 bits in"
                " 'gemm'; quantise it again with version GEMM, or export the model that it was"
                " made from"
            )
        if size < 1 and size != -1:
            raise InputError(f"{WHERE}: group_size must be positive or -1, it is {size}")
        found = {
            name: _matrix(tensors, stem(name), shape, size)
            for name, shape in shapes.items()
            if f"{stem(name)}.qweight" in tensors
        }
        groups = "one group" if size == -1 else f"groups of {size}"
        return Reading(f"AWQ (gemm), 4 bits, {groups}", found)


def _matrix(tensors: Tensors, at: str, shape: Shape, size: int) -> Matrix:
    (out, inputs), codes = shape, f"{at}.qweight"
    groups = 1 if size == -1 else -(-inputs // size)
    if out % PACK or inputs % groups:
        raise tensors.wrong(codes, f"cannot have {out} × {inputs} values in groups of {size}")
    tensors.require(codes, codes, (INT32,), (inputs, out // PACK))
    scales = tensors.scales(f"{at}.scales", codes, (groups, out))
    zeros = tensors.require(f"{at}.qzeros", codes, (INT32,), (groups, out // PACK))

    def rows(start: int, stop: int) -> np.ndarray:
        words = slice(start // PACK, stop // PACK)
        return affine(
            _in_order(tensors.array(codes)[:, words]),
            tensors.array(scales)[:, start:stop].T.astype(np.float32),
            _in_order(tensors.array(zeros)[:, words]),
            None,
        )

    return Matrix(shape, (codes, scales, zeros), rows, step=PACK)


def _in_order(words: np.ndarray) -> np.ndarray:
    """Codes [outputs, n] of words [n, outputs / 8]."""
    fields = unpacked(words, BITS).reshape(*words.shape, PACK)[..., PLACE]
    return np.ascontiguousarray(fields.reshape(len(words), -1).T)
