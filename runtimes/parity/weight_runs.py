"""Artifacts that store the same values, in whatever format, have their weights run once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
Weights = Mapping[str, np.ndarray]


class WeightRuns(Generic[T]):
    """What came of artifacts' weights; a result is found again by the values, not by a name."""

    def __init__(self) -> None:
        self._known: list[tuple[Hashable, Callable[[], Weights], T]] = []

    def once(self, conditions: Hashable, read: Callable[[], Weights], run: Callable[[], T]) -> T:
        """The result of `run`, or that of equal weights under equal conditions.

        Args:
            conditions: all that the result depends on beside the values.
            read: gives the weights, by name; it is kept, and called again for each comparison.
            run: what is done with them, if nobody has.

        Raises:
            InputError: weights cannot be read; and what `run` raises.
        """
        for met, others, result in self._known:
            if met == conditions and same_values(read(), others()):
                return result
        result = run()
        self._known.append((conditions, read, result))
        return result


def same_values(first: Weights, second: Weights) -> bool:
    """Whether both have the same tensors, value by value; NaN equals nothing.

    Names are gone through backwards: what differs shows at once, the large embedding comes last.
    """
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in sorted(first, reverse=True)
    )
