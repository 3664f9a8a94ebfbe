"""How each class of tensors is stored: the names in a recipe → what emits it.

A new storage is one more entry here; `export.onnx.recipe` says which variants and options name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from export.onnx.blocks import BLOCKS
from export.onnx.bnb4 import NAME as BNB4
from export.onnx.bnb4 import bnb4_linear
from export.onnx.decoder import MakeOperators
from export.onnx.dequantised import dequantised_linear
from export.onnx.dynamic import SIGNED, UNSIGNED, DynamicScheme, dynamic_linear
from export.onnx.embedding import BlockTable, FloatTable, MakeTable
from export.onnx.fused import FusedOperators
from export.onnx.linear import EmitLinear, float_linear
from export.onnx.nbits import block_linear
from export.onnx.portable import PortableOperators
from export.onnx.recipe import FUSED, PORTABLE
from export.rounding import Rounder
from export.rounding.cast import FLOAT16, FLOAT32

# What emits a storage, for activations of a dtype and a way of rounding.
Linear = Callable[[np.dtype[Any], Rounder], EmitLinear]
Linears = dict[str, Linear]


def _dynamic(scheme: DynamicScheme) -> Linear:
    return lambda dtype, rounder: dynamic_linear(scheme, rounder)


STANDARD_LINEARS: Linears = {
    **dict.fromkeys(("float32", "float16"), lambda dtype, rounder: float_linear(dtype)),
    **{scheme.name: _dynamic(scheme) for scheme in (SIGNED, UNSIGNED)},
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
            BNB4: lambda dtype, rounder: bnb4_linear(rounder),
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


def table_storage(name: str, dtype: np.dtype[Any], rounder: Rounder, *, native: bool) -> MakeTable:
    """What stores embedding and head; `native` allows operators that browsers may lack."""
    if name in FLOATS:
        return lambda weight, shared: FloatTable(weight, FLOATS[name], dtype)
    return lambda weight, shared: BlockTable(weight, BLOCKS[name], dtype, rounder, native, shared)
