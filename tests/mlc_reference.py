"""Group quantisation computed by TVM, as mlc_llm has TVM compute it: the reference for ours.

Only the formula is here; all arithmetic and rounding is TVM's own CPU code generator's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from export.rounding import Grid


@functools.cache
def _kernel(rows: int, columns: int, dtype: str, grid: Grid) -> Any:
    import tvm
    from tvm import te, tirx

    size, middle = grid.block, tirx.const(grid.zero, dtype)
    weight = te.placeholder((rows, columns), dtype, "weight")
    place = te.reduce_axis((0, size), "place")
    peak = te.compute(
        (rows, grid.blocks(columns)),
        lambda row, group: te.max(
            tirx.if_then_else(
                group * size + place < columns,
                te.abs(weight[row, group * size + place]),
                te.min_value(dtype),
            ),
            axis=place,
        ),
        "peak",
    )
    scale = te.compute(peak.shape, lambda row, group: peak[row, group] / middle, "scale")
    steps = te.compute(
        (rows, columns),
        lambda row, column: tirx.round(weight[row, column] / scale[row, column // size] + middle),
        "steps",
    )
    zero, top = tirx.const(0, dtype), tirx.const(2 * grid.zero, dtype)
    code = te.compute(
        (rows, columns),
        lambda row, column: tirx.min(tirx.max(steps[row, column], zero), top).astype("uint32"),
        "code",
    )
    function = te.create_prim_func([weight, scale, code]).with_attr("global_symbol", "main")
    return tvm.compile(tvm.IRModule({"main": function}), target="llvm")["main"]


def tvm_round_groups(weights: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Codes uint8 [rows, columns] and scales [rows, groups] in the weights' dtype."""
    import tvm

    rows, columns = weights.shape
    dtype = weights.dtype.name
    given = tvm.runtime.empty(weights.shape, dtype)
    given.copyfrom(weights)
    scales = tvm.runtime.empty((rows, grid.blocks(columns)), dtype)
    codes = tvm.runtime.empty(weights.shape, "uint32")
    _kernel(rows, columns, dtype, grid)(given, scales, codes)
    return codes.numpy().astype(np.uint8), scales.numpy().view(weights.dtype)
