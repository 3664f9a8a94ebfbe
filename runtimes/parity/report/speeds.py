"""How fast exports write, with a mark where other programs took the machine meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.parity.measure import Measurement
from runtimes.parity.result import Entry

DISTURBED = "*"


def speed_cell(m: Measurement) -> str:
    """Tokens per second of writing, and per CPU second, in a process of its own."""
    cost = m.footprint
    if cost is None:
        return "–"
    mark = DISTURBED if cost.disturbed else ""
    return f"{cost.decode_tokens_per_second:.0f}{mark}/{cost.decode_tokens_per_cpu_second:.0f}"


def speed_warning(entries: Sequence[Entry]) -> str | None:
    """In which rows the speed tells of the machine more than of the export; None where in none."""
    found = {
        entry.name: cost.other_cores
        for entry in entries
        if (cost := entry.measurement.footprint if entry.measurement else None) and cost.disturbed
    }
    if not found:
        return None
    most = max(cores or 0.0 for cores in found.values())
    return (
        f"{DISTURBED} other programs took up to {most:.1f} cores while these speeds were measured,"
        f" which are too low: {', '.join(found)}"
    )
