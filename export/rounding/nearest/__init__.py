"""The method `nearest`: each value gets the nearest code, as the runtime's own quantiser has it.

One module for each runtime's rules; `RULES` says which of its functions a grid asks for. Scales
follow from the values alone, so no evidence is needed, and the bits are those of the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from export.rounding.evidence import Evidence, Need
from export.rounding.grid import Grid, Kind, Rules
from export.rounding.method import Rounded
from export.rounding.nearest import bitsandbytes, ggml, mlas, mlc, mlx, onnxruntime

# (rows [n, in], grid, name for errors) → their blocks
Rule = Callable[[np.ndarray, Grid, str], Rounded]
RULES: Mapping[tuple[Rules, Kind], Rule] = {
    (Rules.GGML, Kind.CENTRED): ggml.centred,
    (Rules.GGML, Kind.SIGNED): ggml.signed,
    (Rules.GGML, Kind.MINIMUM): ggml.affine,
    (Rules.MLAS, Kind.SIGNED): mlas.symmetric,
    (Rules.MLAS, Kind.ZERO_POINT): mlas.asymmetric,
    (Rules.ONNXRUNTIME, Kind.CENTRED): onnxruntime.symmetric,
    (Rules.ONNXRUNTIME, Kind.ZERO_POINT): onnxruntime.asymmetric,
    (Rules.MLC, Kind.SIGNED): mlc.symmetric,
    (Rules.MLX, Kind.MINIMUM): mlx.affine,
    (Rules.MLX, Kind.CODEBOOK): mlx.microscaled,
    (Rules.BITSANDBYTES, Kind.CODEBOOK): bitsandbytes.normal_float,
}


class Nearest:
    """See `export.rounding.method.Method`."""

    needs = Need.NOTHING

    def round(self, rows: np.ndarray, grid: Grid, evidence: Evidence) -> Rounded:
        """As the grid's runtime itself rounds."""
        return RULES[grid.rules, grid.kind](rows, grid, evidence.name)
