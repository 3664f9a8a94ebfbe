"""NormalFloat4: 16 fixed levels times the largest magnitude of a block.

Invariant: bit for bit what bitsandbytes and ONNX Runtime give (`QuantizeOneNF4` in
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/contrib_ops/cpu/quantization/blockwise_quant_block_bnb4.h),
for every block whose largest magnitude is a normal number. Arithmetic is float32, as in C.
"""

from __future__ import annotations

import numpy as np

from export.rounding.grid import Grid
from export.rounding.method import Rounded, lanes

# A value ÷ the block's largest magnitude has the code of the number of bounds below it.
BOUNDS = np.array(
    [
        -0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544,
        -0.23460740596055984, -0.13791173323988914, -0.045525018125772476, 0.03979014977812767,
        0.1202552504837513, 0.2035212516784668, 0.2920137718319893, 0.3893125355243683,
        0.5016634166240692, 0.6427869200706482, 0.8614784181118011,
    ],
    np.float32,
)  # fmt: skip


def normal_float(rows: np.ndarray, grid: Grid, name: str) -> Rounded:
    """The scale of a block is its largest magnitude."""
    values = lanes(rows, grid)
    peaks = np.abs(values).max(axis=0)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.reciprocal(peaks)
    values *= np.where(np.isfinite(inverse), inverse, np.float32(0))
    return Rounded(np.searchsorted(BOUNDS, values, side="left").astype(np.uint8), peaks)
