"""What a user says of an adapter: where it is, and how much of it is merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeproof.errors import InputError


@dataclass(frozen=True)
class AdapterRequest:
    """An adapter's folder or hub id, and what its change of the weights is multiplied with.

    Raises:
        InputError: the weight is not finite.
    """

    id: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise InputError(f"{self.id}: an adapter's weight must be finite, not {self.weight}")


def requests(ids: Sequence[str], weights: Sequence[float]) -> tuple[AdapterRequest, ...]:
    """Adapters with their weights, in order; no weights at all are 1 each.

    Raises:
        InputError: another number of weights than of adapters.
    """
    if weights and len(weights) != len(ids):
        raise InputError(
            f"--adapter-weight is given {len(weights)} times for {len(ids)} --adapter: give each"
            " adapter its weight, in the same order, or none"
        )
    return tuple(map(AdapterRequest, ids, weights or [1.0] * len(ids)))
