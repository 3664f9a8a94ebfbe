"""Few replies are asked for only where the verdict is clear without them."""

from __future__ import annotations

import math

import pytest

from runtimes.parity.effort import WIDE, decided_widely
from runtimes.parity.gates import Gate
from runtimes.parity.intervals import Estimate

GATES = (Gate("mean_kl", 0.05, "a reason"), Gate("top1", 0.9, "a reason", at_least=True))
GOOD, BAD, OPEN = Estimate(0.95, 0.94, 0.96), Estimate(0.8, 0.7, 0.85), Estimate(0.9, 0.8, 0.95)


def kl(value: float, low: float, high: float, top1: Estimate = GOOD) -> dict[str, Estimate]:
    return {"mean_kl": Estimate(value, low, high), "top1": top1}


@pytest.mark.parametrize(
    ("estimates", "clear"),
    [
        (kl(0.01, 0.009, 0.05 / WIDE), True),
        (kl(0.01, 0.009, 0.013), False),
        (kl(0.3, 0.05 * WIDE, 0.4), True),
        (kl(0.3, 0.19, 0.4), False),
        (kl(0.01, 0.009, 0.011, OPEN), False),
        (kl(0.01, 0.009, 0.011, BAD), False),
        (kl(0.3, 0.25, 0.4, OPEN), True),
        (kl(0.01, math.nan, math.nan), False),
    ],
)
def test_the_whole_interval_has_to_be_far_from_the_limit(
    estimates: dict[str, Estimate], clear: bool
) -> None:
    assert decided_widely(estimates, None, GATES) is clear


def test_without_that_gate_nothing_is_clear() -> None:
    assert not decided_widely(kl(0.0, 0.0, 0.0), None, GATES[1:])


def test_the_gate_of_weights_counts_too() -> None:
    weights = Gate("top1", 0.9, "a reason", at_least=True, of_weights=True)
    good = kl(0.001, 0.0009, 0.0011)
    assert decided_widely(good, {"top1": GOOD}, (GATES[0], weights))
    assert not decided_widely(good, {"top1": OPEN}, (GATES[0], weights))
