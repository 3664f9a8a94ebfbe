"""No false alarm: clean exports on many different subsets of the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.verdicts import Verdict
from runtimes.formats import dequantise
from runtimes.parity.gates import gates_for
from runtimes.parity.inputs import recorded_inputs
from runtimes.parity.reference import load_reference
from runtimes.parity.repeats import counted_once
from runtimes.parity.replay import replay, replay_weights
from runtimes.parity.statistics import summarise
from runtimes.parity.suite import Suite
from runtimes.parity.verdict import judge
from runtimes.registry import open_reference, open_runtime

RUNS = 20
SEED = 20240816
ALARMS = (Verdict.FAIL, Verdict.DEGRADED)


def verdicts_on_subsets(
    checkpoint: Path, suite: Suite, artifacts: Sequence[Artifact], threads: int
) -> dict[str, Counter[Verdict]]:
    """Verdicts on `RUNS` random halves of the documents, by artifact.

    Every position is measured once, in the artifact's runtime and with its weights in PyTorch;
    intervals, gates and verdicts are then those of the documents that a run has.
    """
    original = open_reference(checkpoint, threads)
    inputs = recorded_inputs(checkpoint, artifacts)
    reference = load_reference(original, suite, inputs, lambda: None)
    count = len(reference.documents)
    rng = np.random.default_rng(SEED)
    subsets = [rng.choice(count, count // 2, replace=False) for _ in range(RUNS)]
    found: dict[str, Counter[Verdict]] = {}
    for artifact in artifacts:
        variant = artifact.manifest.variant
        weights = replay_weights(original, dequantise(artifact), reference, threads)
        runtime = open_runtime(artifact, threads)
        measured = replay(reference, runtime.logit_blocks, threads, lambda: None)
        runtime.close()
        verdicts = found[f"{variant.format} {variant.name}"] = Counter()
        for subset in subsets:
            documents = [reference.documents[index] for index in subset]
            estimates, alone = (
                summarise(counted_once(documents, [side[index] for index in subset]))
                for side in (measured.metrics, weights)
            )
            gates = gates_for(variant.precision, {})
            verdicts[judge(estimates, alone, gates, measured.failures).verdict] += 1
    return found
