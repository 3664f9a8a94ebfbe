"""What an artifact's stored weights cost by themselves: run in PyTorch, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeproof.artifact import Artifact
from runtimes.formats import dequantise
from runtimes.parity.bench import Bench, WeightRun
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import Estimate
from runtimes.parity.localise import Weighed, weigh
from runtimes.parity.looks import Looks
from runtimes.parity.replay import replay_weights
from runtimes.parity.stored import stored_faults
from runtimes.parity.verdict import judge

# How much of the text the weights alone are run on: PyTorch takes longer than most runtimes.
WEIGHT_POSITIONS = 2000


def run_weights(
    artifact: Artifact, bench: Bench, limits: Sequence[Gate], faults: list[str]
) -> WeightRun:
    """What the artifact's weights give in PyTorch, and how they err.

    No metrics and no estimates if they are exact. What rounding does not explain is added to
    `faults`. Where that, or the gates that are asked of the weights, decide, the rest of the text
    is left out.
    """

    def read() -> Mapping[str, np.ndarray]:
        return dequantise(artifact, bench.original.weights)

    weights, reference = read(), bench.reference_for(artifact)
    own = tuple(gate for gate in limits if gate.of_weights)

    def run() -> WeightRun:
        with bench.stages.phase("tensors"):
            weighed = weigh(bench.subject(artifact), weights)
        broken = [*faults, *stored_faults(weighed.findings)]

        def settled(found: Mapping[str, Estimate], _: Sequence[str]) -> bool:
            return judge(found, found, own, broken).settled

        part = reference.part(WEIGHT_POSITIONS)
        looks = Looks(part.documents, part.parts, settled)
        with bench.stages.phase("weights"):
            found = replay_weights(bench.original, weights, part, bench.threads, looks.enough)
        return found, looks.estimates, weighed

    with bench.stages.phase("same values"):
        exact = bench.original.has_weights(weights)
    if exact:
        return [], None, Weighed()
    conditions = artifact.manifest.variant.precision, own, tuple(faults), len(reference.head)
    found, alone, weighed = bench.weight_runs.once(conditions, read, run)
    faults += stored_faults(weighed.findings)
    return found, alone, weighed
