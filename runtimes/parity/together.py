"""What results of several artifacts of one model say of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runtimes.parity.floor import floor_notes, floors
from runtimes.parity.result import Entry, ReferenceFacts


def together(facts: ReferenceFacts, entries: Sequence[Entry]) -> tuple[ReferenceFacts, list[Entry]]:
    """Facts and entries, each of an artifact that was compared as if alone, with each other.

    What a runtime costs by itself is known from its exact artifacts, and noted with the others.
    """
    known = floors((entry.artifact, entry.measurement) for entry in entries)
    noted = [
        replace(
            entry,
            judgement=entry.judgement.noted(*floor_notes(entry.measurement, entry.gates, known)),
        )
        for entry in entries
    ]
    return replace(facts, floors=known), noted
