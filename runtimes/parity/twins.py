"""Files of an artifact that compute the same model for another runtime: they are run as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeproof.errors import InputError
from runtimes.formats import Twin
from runtimes.parity.divergence import compare
from runtimes.protocol import Runtime

# A few positions pass through every node and every weight.
TOKENS = 16
# Nats. The same operators on the same weights give the same bits; a graph without the choice of
# positions may multiply the head in another order.
LIMIT = 1e-4


@dataclass(frozen=True)
class Beginning:
    """Some token ids, and what the artifact gives for them: float32 [T, V]."""

    ids: Sequence[int]
    logits: np.ndarray


def beginning(runtime: Runtime, ids: Sequence[int]) -> Beginning:
    """What an artifact gives for the first tokens of a text."""
    return Beginning(ids[:TOKENS], runtime.logits(ids[:TOKENS]))


def twin_faults(twins: Iterable[Twin], begun: Beginning, threads: int) -> Iterator[str]:
    """What is wrong with twins of the artifact that gave `begun`, in words."""
    ids, logits = begun.ids, begun.logits
    for twin in twins:
        try:
            runtime = twin.open(threads)
            try:
                got = runtime.logits(ids)
            finally:
                runtime.close()
        except InputError as error:
            yield str(error)
            continue
        if got.shape != logits.shape:
            yield f"{twin.name} has a vocabulary of {got.shape[1]}, not {logits.shape[1]}"
            continue
        kl = float(compare(logits, got, ids).kl.max())
        if not kl <= LIMIT:
            yield f"{twin.name} computes something else than its twin does: KL {kl:.3g}"
