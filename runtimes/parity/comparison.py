"""Is one export really better than another? The same text through both, compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproof.artifact import Artifact
from edgeproof.errors import GateError
from runtimes.computing import ON_CPU
from runtimes.parity.inputs import check_current, recorded_inputs
from runtimes.parity.intervals import Estimate
from runtimes.parity.metrics import Metric, compared
from runtimes.parity.original import original_inputs, original_of
from runtimes.parity.reference import Reference, load_reference
from runtimes.parity.repeats import counted_once
from runtimes.parity.replay import Replay, replay
from runtimes.parity.stages import Stages
from runtimes.parity.statistics import paired_difference, summarise
from runtimes.parity.suite import Suite
from runtimes.registry import open_reference, open_runtime


@dataclass(frozen=True)
class Row:
    """One metric of both exports and the difference `second` − `first`, each with its interval."""

    metric: Metric
    first: Estimate
    second: Estimate
    difference: Estimate

    @property
    def better(self) -> str | None:
        """Which side: "A" or "B" where the difference's whole interval says so, else None."""
        if not self.difference.known or self.difference.low <= 0 <= self.difference.high:
            return None
        return "B" if (self.difference.low > 0) == self.metric.more_is_better else "A"


@dataclass(frozen=True)
class Comparison:
    """All metrics of two exports of one checkpoint on the same text."""

    documents: int
    positions: int
    rows: tuple[Row, ...]


def compare_artifacts(
    checkpoint: Path, suite: Suite, first: Artifact, second: Artifact, threads: int
) -> Comparison:
    """Run two exports, in any formats, over the same documents and compare them in pairs.

    Raises:
        InputError: an artifact is stale or damaged, or cannot be opened.
        GateError: an export gives logits that are not finite, so there is nothing to compare.
    """
    inputs = recorded_inputs(checkpoint, (first, second))
    for artifact in (first, second):
        check_current(artifact, inputs)
    original = original_of(checkpoint, None)
    runtime = open_reference(original, threads, ON_CPU)
    stages = Stages()
    with stages.subject("reference"), stages.phase("text", len(suite.prompts)) as advance:
        files = original_inputs(original, checkpoint, inputs)
        reference = load_reference(runtime, suite, files, advance)
    before, after = (
        _replayed(reference, artifact, threads, stages) for artifact in (first, second)
    )
    first_metrics, second_metrics = (
        counted_once(reference.documents, side.metrics) for side in (before, after)
    )
    sides = summarise(first_metrics), summarise(second_metrics)
    difference = paired_difference(first_metrics, second_metrics)
    rows = (
        Row(metric, *(found[metric.name] for found in (*sides, difference)))
        for metric in compared()
    )
    return Comparison(len(reference.documents), reference.positions, tuple(rows))


def _replayed(reference: Reference, artifact: Artifact, threads: int, stages: Stages) -> Replay:
    variant, count = artifact.manifest.variant, len(reference.documents)
    runtime = open_runtime(artifact, threads)
    try:
        with (
            stages.subject(f"{variant.format} {variant.name}"),
            stages.phase("text", count) as step,
        ):
            result = replay(reference, runtime.logit_blocks, threads, step)
    finally:
        runtime.close()
    if result.failures:
        raise GateError(f"{artifact.path}: {result.failures[0]}; run `edgeproof parity` on it")
    return result
