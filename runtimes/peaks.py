"""The largest values inside a network, by place: what may overflow float16, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

FP16_MAX = 65504.0


class Place(str, Enum):
    """Where values come near float16's greatest number first."""

    STREAM = "residual stream"  # what enters its norms
    OUTPUTS = "output of attention or MLP before its norm"
    HEADS = "queries and keys before their norm"
    PRODUCT = "gate × up"  # what enters down_proj
    SCORES = "attention scores"  # scaled, before the softmax; at most that


@dataclass(frozen=True)
class Peak:
    """The largest |value| that a text gave at a place."""

    place: Place
    layer: int | None
    """Where it was, from 0; null behind the last layer."""
    value: float

    @property
    def where(self) -> str:
        """The place in words."""
        layer = "behind the last layer" if self.layer is None else f"in layer {self.layer}"
        return f"{self.place.value} {layer}"


def largest(peaks: Iterable[Peak]) -> tuple[Peak, ...]:
    """The largest peak of each place, in the places' order; of equal ones the first."""
    found: dict[Place, Peak] = {}
    for peak in peaks:
        best = found.get(peak.place)
        if best is None or peak.value > best.value:
            found[peak.place] = peak
    return tuple(found[place] for place in Place if place in found)


def stream_peak(peaks: Iterable[Peak]) -> float:
    """The largest |value| of the residual stream; 0 where nothing was run."""
    return max((peak.value for peak in peaks if peak.place is Place.STREAM), default=0.0)
