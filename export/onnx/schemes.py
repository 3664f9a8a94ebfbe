"""How each class of tensors is stored: the names in `Variant.storage` → what emits it.

A new storage is one more entry here; `export.onnx.recipe` says which variants and options name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from export.onnx.bnb4 import NAME as BNB4
from export.onnx.bnb4 import bnb4_linear
from export.onnx.decoder import MakeOperators
from export.onnx.dequantised import dequantised_linear
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
Linears = dict[str, Callable[[np.dtype[Any]], EmitLinear]]
STANDARD_LINEARS: Linears = {
    "float32": float_linear,
    "float16": float_linear,
    **{scheme.name: _in_float32(dynamic_linear(scheme)) for scheme in (SIGNED, UNSIGNED)},
}


@dataclass(frozen=True)
class Style:
    """A value of --graph: the operators of norms and attention, and of each linear storage."""

    operators: MakeOperators
    linears: Linears


STYLES = {
    FUSED: Style(
        FusedOperators,
        {
            **STANDARD_LINEARS,
            **{name: partial(block_linear, scheme) for name, scheme in BLOCKS.items()},
            BNB4: _in_float32(bnb4_linear),
        },
    ),
    PORTABLE: Style(
        PortableOperators,
        {
            **STANDARD_LINEARS,
            **{name: partial(dequantised_linear, scheme) for name, scheme in BLOCKS.items()},
        },
    ),
}
FLOATS = {dtype.name: dtype for dtype in (FLOAT32, FLOAT16)}


def table_storage(name: str, dtype: np.dtype[Any], *, native: bool) -> MakeTable:
    """What stores embedding and head; `native` allows operators that browsers may lack."""
    if name in FLOATS:
        return lambda weight, shared: FloatTable(weight, FLOATS[name], dtype)
    return lambda weight, shared: BlockTable(weight, BLOCKS[name], dtype, native, shared)
