"""The fields of `parity.json` that say how long something took: no two runs have them alike.

All others are equal, whoever carried a run out, on machines of one kind with as many threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of each artifact's `measurement`; a footprint is all of it about speed and memory.
TIMED = (
    "footprint",
    "greedy.tokens_per_second",
    "load_seconds",
    "prefill_tokens_per_second",
)


def untimed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same parity.json without these fields."""
    artifacts = [_without(artifact) for artifact in document["artifacts"]]
    return {**document, "artifacts": artifacts}


def _without(artifact: Mapping[str, Any]) -> dict[str, Any]:
    measurement = artifact["measurement"]
    if measurement is None:
        return dict(artifact)
    left = dict(measurement)
    for field in TIMED:
        name, _, inner = field.partition(".")
        if not inner:
            left.pop(name)
        elif left[name] is not None:
            left[name] = {key: value for key, value in left[name].items() if key != inner}
    return {**artifact, "measurement": left}
