"""What a recovery takes, as it can be said before: seconds of one core.

They follow from the shapes of a model and the length of the text. What a token takes grows with the
weights; what scaling channels and rounding take, for each weight, with the inputs of its matrix.
The figures are fitted to layers in the shapes of 135M, 360M and 1.7B, with one thread on a machine
with AVX-512: `python -m benchmarks.recovery_cost` measures them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GRADED = 2 / 5  # of the text has a backward pass: it costs as much as three forward ones
# Seconds that the 135M's WEIGHTS take for a token.
WEIGHTS = 134_515_008
SAMPLED_TOKEN, PLAIN_TOKEN, GRADED_TOKEN, JUDGED_TOKEN = 0.0047, 0.0038, 0.0105, 0.012
# Of a weight: seconds, and seconds for each input of its matrix.
FOLDED, ROUNDED = (2.0e-7, 6.5e-11), (5e-8, 7.0e-10)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Costs:
    """Seconds of one core that parts of a recovery of one model take."""

    sampled_token: float
    plain_token: float
    graded_token: float
    judged_token: float

    @staticmethod
    def of(shapes: Iterable[Shape]) -> Costs:
        """Of a model whose parameters have these shapes."""
        times = sum(map(math.prod, shapes)) / WEIGHTS
        tokens = (SAMPLED_TOKEN, PLAIN_TOKEN, GRADED_TOKEN, JUDGED_TOKEN)
        return Costs(*(times * seconds for seconds in tokens))

    def measuring(self, tokens: int) -> float:
        """Moments of a text."""
        return tokens * (GRADED * self.graded_token + (1 - GRADED) * self.plain_token)


def folding(shapes: Iterable[Shape]) -> float:
    """Seconds of scaling the channels of matrices; other shapes count nothing."""
    return _matrices(shapes, *FOLDED)


def rounding(shapes: Iterable[Shape]) -> float:
    """Seconds of rounding matrices to one grid each; other shapes count nothing."""
    return _matrices(shapes, *ROUNDED)


def whole(shapes: Sequence[Shape], texts: Iterable[int], goals: int) -> float:
    """Seconds of so many recoveries of a model, of texts of so many tokens that they share."""
    costs, longest, seconds = Costs.of(shapes), 0, 0.0
    for tokens in texts:
        held, longest = tokens // 4, max(longest, tokens)
        seconds += costs.sampled_token * (tokens + held) + costs.measuring(tokens)
        seconds += folding(shapes)
    return seconds + goals * (rounding(shapes) + costs.judged_token * (longest // 4))


def _matrices(shapes: Iterable[Shape], weight: float, each_input: float) -> float:
    return sum(
        math.prod(shape) * (weight + each_input * shape[-1]) for shape in shapes if len(shape) > 1
    )
