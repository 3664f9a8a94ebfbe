"""MLC's weight schemes: how a parameter is stored, and what it is dequantised to."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes  # noqa: F401  (NumPy then knows bfloat16 by name)
import numpy as np

from edgeproof.errors import InputError

WORD_BITS = 32
EMBEDDINGS, HEAD = ("embed_tokens", "embd"), "lm_head"


@dataclass(frozen=True)
class Groups:
    """Group quantisation of a matrix along its input axis: `group` codes share one scale.

    Codes of `bits` bits lie least significant first in uint32 words, and a group fills whole
    words. weight = (code − zero) × scale. With `transposed`, words and scales of every matrix but
    the embedding are stored [in, out].
    """

    bits: int
    group: int
    transposed: bool = False

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
    """`dtype` is MLC's model dtype: of scales, norms and unquantised matrices (`plain`)."""

    name: str
    dtype: str
    groups: Groups | None = None
    plain: tuple[str, ...] = ()

    def groups_of(self, module: str) -> Groups | None:
        """How a matrix is quantised; None if it is not. `module` is its name's last part."""
        return None if module in self.plain else self.groups

    def transposed(self, module: str) -> bool:
        """Whether a quantised matrix is stored [in, out]."""
        return self.groups is not None and self.groups.transposed and module not in EMBEDDINGS


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("q0f16", "float16"),
        Scheme("q0f32", "float32"),
        Scheme("q0bf16", "bfloat16"),
        Scheme("q4f16_0", "float16", Groups(bits=4, group=32, transposed=True)),
        Scheme("q4f16_1", "float16", Groups(bits=4, group=32)),
        Scheme("q4f16_2", "float16", Groups(bits=4, group=32), (*EMBEDDINGS, HEAD)),
        Scheme("q4f32_1", "float32", Groups(bits=4, group=32)),
        Scheme("q4bf16_1", "bfloat16", Groups(bits=4, group=32)),
        Scheme("q3f16_0", "float16", Groups(bits=3, group=40, transposed=True)),
        Scheme("q3f16_1", "float16", Groups(bits=3, group=40)),
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

    A quantised matrix [out, in] becomes `….q_weight` and `….q_scale`; vectors and unquantised
    matrices stay as they are.
    """
    module = module_of(name)
    groups = scheme.groups_of(module)
    if groups is None or len(shape) == 1:
        return (Record(name, shape, scheme.dtype),)
    outs, ins = shape
    count, base = groups.count(ins), name.removesuffix("weight")
    shapes = ((outs, count * groups.group // groups.per_word), (outs, count))
    if scheme.transposed(module):
        shapes = (shapes[0][::-1], shapes[1][::-1])
    return (
        Record(base + "q_weight", shapes[0], "uint32"),
        Record(base + "q_scale", shapes[1], scheme.dtype),
    )


def module_of(name: str) -> str:
    """`down_proj` of `model.layers.0.mlp.down_proj.weight`."""
    return name.split(".")[-2]
