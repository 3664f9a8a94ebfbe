"""A runtime's own noise floor: what it costs where the stored weights are exact.

float32 artifacts whose weights equal the checkpoint's value by value differ from PyTorch only by
the runtime's arithmetic, so their KL is what no exporter can get below in that runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeproof.artifact import Artifact, Precision
from runtimes.parity.gates import Gate
from runtimes.parity.measure import Measurement

OF_FLOORS = ("mean_kl", "p99_kl")


@dataclass(frozen=True)
class Floor:
    """KL in nats of a float32 artifact with exact weights in a runtime: its own arithmetic."""

    artifact: str
    """Which one that is."""
    mean_kl: float
    p99_kl: float


def floors(measured: Iterable[tuple[Artifact, Measurement | None]]) -> dict[str, Floor]:
    """The floor of each runtime that executed a float32 artifact with exact weights."""
    found = {}
    for artifact, measurement in measured:
        variant = artifact.manifest.variant
        if measurement is None or measurement.failures or not measurement.exact_weights:
            continue
        if not measurement.whole_text:  # another text than the others' is no measure for them
            continue
        if variant.precision is Precision.FP32:
            values = (measurement.estimates[metric].value for metric in OF_FLOORS)
            found[measurement.runtime] = Floor(f"{variant.format} {variant.name}", *values)
    return found


def floor_notes(
    measurement: Measurement | None, gates: Sequence[Gate], known: Mapping[str, Floor]
) -> list[str]:
    """What to say of gates that are missed by less than the runtime's own floor."""
    if measurement is None or measurement.runtime not in known:
        return []
    floor, notes = known[measurement.runtime], []
    for gate in gates:
        if gate.metric not in OF_FLOORS or gate.of_weights:
            continue
        excess = measurement.estimates[gate.metric].value - gate.limit
        own = getattr(floor, gate.metric)
        if 0 < excess < own:
            notes.append(
                f"{gate.metric} misses {gate.limit:g} by {excess:.2g}, less than the runtime's own"
                f" arithmetic costs: {own:.2g} with exact weights ({floor.artifact})"
            )
    return notes
