"""Where a file goes its own way that has to compute what its twin does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.formats import reader_of
from runtimes.parity.localise.errors import relative_error
from runtimes.parity.localise.names import COMPONENTS, place_of
from runtimes.parity.localise.result import Cause, Finding

# The same operators on the same weights give the same bits, another order of sums some noise.
LIMIT = 1e-3
ORDER = list(COMPONENTS)


def twin_fault(
    name: str, got: Mapping[str, np.ndarray], twin: Mapping[str, np.ndarray]
) -> Finding | None:
    """The first step of the twin `name` whose result is not what `got` has for it."""
    wrong = [
        state
        for state in got.keys() & twin.keys()
        if got[state].shape != twin[state].shape or relative_error(twin[state], got[state]) > LIMIT
    ]
    if not wrong:
        return None
    return _own_way(name, min(wrong, key=_place))


def apart(artifact: Artifact) -> Iterator[Finding]:
    """Where twins are stored otherwise, which is found without running them.

    Raises:
        InputError: a file cannot be read.
    """
    for twin in reader_of(artifact).twins(artifact):
        try:
            places = twin.apart()
        except (OSError, ValueError) as error:
            raise InputError(f"{artifact.path / twin.name}: cannot be read ({error})") from None
        if places:
            yield _own_way(twin.name, places[0])


def _own_way(name: str, place: str) -> Finding:
    layer, component = place_of(place)
    where = component.value if component else place
    where = where if layer is None else f"layer {layer}, {where}"
    text = f"{name} goes its own way at {where}, unlike the graph that is compared with PyTorch"
    return Finding(Cause.GRAPH, text, layer, component)


def _place(state: str) -> tuple[float, int]:
    """The order of computation; what is in no layer comes last."""
    layer, component = place_of(state)
    step = next((i for i, name in enumerate(ORDER) if COMPONENTS[name] is component), len(ORDER))
    return (float("inf") if layer is None else layer), step
