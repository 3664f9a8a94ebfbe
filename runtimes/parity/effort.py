"""How many replies an artifact is asked for: few where its verdict is clear without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeproof.verdicts import Verdict
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import Estimate
from runtimes.parity.verdict import judge

FEW_GREEDY, FEW_SAMPLED = 6, 4
# How many times its limit the mean KL is away from it.
WIDE = 4.0
DECISIVE = "mean_kl"


def decided_widely(
    runtime: Mapping[str, Estimate], weights: Mapping[str, Estimate] | None, gates: Sequence[Gate]
) -> bool:
    """Whether the verdict is decided, and the mean KL's whole interval is far from its limit."""
    limits = [gate.limit for gate in gates if gate.metric == DECISIVE and not gate.of_weights]
    kl, verdict = runtime[DECISIVE], judge(runtime, weights, gates, ()).verdict
    if verdict is Verdict.PASS:
        return any(kl.high <= limit / WIDE for limit in limits)
    return verdict is Verdict.DEGRADED and any(kl.low >= limit * WIDE for limit in limits)
