"""How far apart two computations of the same thing may be, by what is compared.

* The same bits: no tolerance; `==` or `assert_array_equal`.
* The same formula in float64, its sums in another order: `REORDERED_FLOAT64`.
* The same model in float32, its sums in another order: another BLAS, number of threads or of rows,
  steps instead of one pass: `REORDERED_FLOAT32`, and in KL `REORDERED_KL`.
* The same model in another runtime in float32, with exponentials, square roots and rotary angles
  of its own: `OTHER_RUNTIME`.
* The same model where values are rounded on the way, by the file or by the runtime: `ROUNDED`.

None may depend on the processor. `make test-processors` runs the tests that compare numbers as
other processors would compute.
"""

from __future__ import annotations

import numpy as np

# Sums of up to some thousand terms, each rounded by 2⁻⁵³ of a total that may cancel a little.
REORDERED_FLOAT64 = 1e-9
# A hundred roundings by 2⁻²⁴ on the way through the layers, and as much again.
REORDERED_FLOAT32 = 1e-5
# KL ≈ half the variance of the logits' error: (5e-6 × a spread of 8)² / 2.
REORDERED_KL = 1e-9
# Fast exponentials and rotary angles are wrong by a few units in the last place, not half of one.
OTHER_RUNTIME = 1e-5
# Some ten roundings on the way: by 2⁻¹¹, by 2⁻⁸, and to 255 steps between a call's extremes.
ROUNDED = {"float16": 5e-3, "bfloat16": 4e-2, "int8": 0.1}
# A cache of float16 beside products that are rounded so anyway.
ROUNDED_KL = 1e-6
# All sums are rounded to 11 bits too.
FLOAT16_ON_GPU = 2e-2


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root of the mean squared difference, relative to the standard deviation of `expected`.

    A mean over all positions, since the worst of them is a matter of chance.

    Args:
        found: logits, or other values, of any shape.
        expected: the same shape.
    """
    assert found.shape == expected.shape
    difference = found.astype(np.float64) - expected
    return float(np.sqrt(np.square(difference).mean()) / expected.std(dtype=np.float64))
