"""The smallest size that passes the gates, in few measurements.

What is lost in token acceptance grows about with the root of the KL, and the KL with what was
predicted; so each measurement tells which size to try next, between what failed and what passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeproof.errors import GateError

# Lost acceptance over the root of the predicted KL, on the real SmolLM2-135M in GGUF's types.
FIRST_GUESS = 0.6
STEP = 0.05  # bits per weight between sizes that are told apart
MOST = 6


@dataclass(frozen=True)
class Measured:
    """Whether a size passes, and how much of a sampled text it changes at most: a share."""

    passes: bool
    lost: float


def smallest(
    least: float,
    most: float,
    allowed: float,
    predicted: Callable[[float], float],
    measured: Callable[[float], Measured],
) -> float:
    """Bits per weight of the smallest size found to pass.

    Args:
        least: the smallest size.
        most: the largest one.
        allowed: the share of tokens that may change.
        predicted: nats of KL at a size; it falls with the size.
        measured: the verdict on a size, which takes minutes.

    Raises:
        GateError: not even the largest size passes.
    """
    factor, failed, passed = FIRST_GUESS, least - STEP, math.inf
    for _ in range(MOST):
        wanted = _size(least, most, predicted, (allowed / factor) ** 2)
        upper = most if math.isinf(passed) else passed - STEP
        size = min(max(wanted, failed + STEP), upper)
        found = measured(size)
        if found.passes:
            passed = size
        else:
            failed = size
            if size >= most:
                raise GateError(f"not even {most:.2f} bits per weight pass these gates")
        factor = max(found.lost, 1e-6) / math.sqrt(max(predicted(size), 1e-12))
        if passed - failed < 2 * STEP:
            return passed
    if math.isinf(passed):
        if not measured(most).passes:
            raise GateError(f"not even {most:.2f} bits per weight pass these gates")
        return most
    return passed


def _size(least: float, most: float, predicted: Callable[[float], float], nats: float) -> float:
    """The smallest size, in steps, that is predicted to lose at most so much."""
    low, high = 0, math.ceil((most - least) / STEP)
    while low < high:
        middle = (low + high) // 2
        if predicted(least + STEP * middle) <= nats:
            high = middle
        else:
            low = middle + 1
    return min(least + STEP * low, most)
