"""How each class of tensors is stored: the names in `Variant.storage` → what emits it.

A new storage is one more entry here; `export.onnx.recipe` says which variants and options name it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from export.onnx.bnb4 import NAME as BNB4
from export.onnx.bnb4 import bnb4_linear
from export.onnx.decoder import MakeOperators
from export.onnx.dynamic import SIGNED, UNSIGNED, dynamic_linear
from export.onnx.embedding import BlockTable, FloatTable, MakeTable
from export.onnx.fused import FusedOperators
from export.onnx.linear import EmitLinear, float_linear
from export.onnx.nbits import BlockScheme, block_linear
from export.onnx.portable import PortableOperators
from export.onnx.recipe import FUSED, PORTABLE
from export.quantization.cast import FLOAT16, FLOAT32

BLOCKS = {
    scheme.name: scheme
    for scheme in (
        BlockScheme("q8", bits=8, block=32, symmetric=True, accuracy_level=4),
        BlockScheme("q4", bits=4, block=32, symmetric=True, accuracy_level=4),
        BlockScheme("q4-asymmetric", bits=4, block=32, symmetric=False, accuracy_level=4),
    )
}


def _in_float32(emit: EmitLinear) -> Callable[[np.dtype[Any]], EmitLinear]:
    """A storage of which there is one, for float32 activations."""
    return lambda dtype: emit


# Each takes the dtype of the activations.
LINEARS: dict[str, Callable[[np.dtype[Any]], EmitLinear]] = {
    "float32": float_linear,
    "float16": float_linear,
    **{name: partial(block_linear, scheme) for name, scheme in BLOCKS.items()},
    **{scheme.name: _in_float32(dynamic_linear(scheme)) for scheme in (SIGNED, UNSIGNED)},
    BNB4: _in_float32(bnb4_linear),
}
STYLES: dict[str, MakeOperators] = {FUSED: FusedOperators, PORTABLE: PortableOperators}
FLOATS = {dtype.name: dtype for dtype in (FLOAT32, FLOAT16)}


def linear_storage(name: str, dtype: np.dtype[Any]) -> EmitLinear:
    """What stores and multiplies linear weights; `dtype` is that of the activations."""
    return LINEARS[name](dtype)


def table_storage(name: str, dtype: np.dtype[Any], *, native: bool) -> MakeTable:
    """What stores embedding and head; `native` allows operators that browsers may lack."""
    if name in FLOATS:
        return lambda weight, shared: FloatTable(weight, FLOATS[name], dtype)
    return lambda weight, shared: BlockTable(weight, BLOCKS[name], dtype, native, shared)
