"""MLC's weight schemes: how a parameter is stored, and what it is dequantised to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.errors import InputError

WORD_BITS = 32


@dataclass(frozen=True)
class Groups:
    """Group quantisation of a matrix along its input axis: `group` codes share one scale.

    Codes of `bits` bits lie least significant first in uint32 words, and a group fills whole
    words. weight = (code − zero) × scale.
    """

    bits: int
    group: int

    @property
    def zero(self) -> int:
        """The code of weight 0."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def per_word(self) -> int:
        """Codes in one uint32."""
        return WORD_BITS // self.bits

    def count(self, ins: int) -> int:
        """Groups in a row of `ins` weights; the last one may be padded."""
        return -(-ins // self.group)


@dataclass(frozen=True)
class Scheme:
    """`dtype` is MLC's model dtype: of scales, norms and unquantised matrices."""

    name: str
    dtype: str
    groups: Groups | None = None


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f16", "float16"),
        Scheme("q0f32", "float32"),
        Scheme("q4f16_1", "float16", Groups(bits=4, group=32)),
    )
}


@dataclass(frozen=True)
class Record:
    """One stored array that the decoder needs: its name in tensor-cache.json, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def scheme_of(name: str, source: str) -> Scheme:
    """The scheme of that name; `source` names the file in the error.

    Raises:
        InputError: not a scheme that this adapter executes.
    """
    if name not in SCHEMES:
        raise InputError(f"{source}: quantization {name!r} is not one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def stored_records(name: str, shape: tuple[int, ...], scheme: Scheme) -> tuple[Record, ...]:
    """What MLC stores for the parameter `name` ("….weight") of that logical shape.

    A matrix [out, in] of a quantised scheme becomes `….q_weight` and `….q_scale`; vectors and
    unquantised matrices stay as they are.
    """
    if scheme.groups is None or len(shape) == 1:
        return (Record(name, shape, scheme.dtype),)
    outs, ins = shape
    count, base = scheme.groups.count(ins), name.removesuffix("weight")
    words = count * scheme.groups.group // scheme.groups.per_word
    return (
        Record(base + "q_weight", (outs, words), "uint32"),
        Record(base + "q_scale", (outs, count), scheme.dtype),
    )
