"""Flips are counted, and too little text is open and says how much is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeproof.artifact import Precision
from edgeproof.verdicts import Verdict
from runtimes.parity.divergence import PositionMetrics, compare
from runtimes.parity.gates import GATES, Gate, gates_for
from runtimes.parity.statistics import summarise
from runtimes.parity.verdict import judge

pytestmark = pytest.mark.numbers

VOCAB = 50


def clear_documents(count: int, rows: int, flips: int = 0) -> list[PositionMetrics]:
    """Documents of an export whose KL is small everywhere, with flips at clear positions of one."""
    rng = np.random.default_rng(count)
    p = 6 * np.eye(VOCAB)[rng.integers(0, VOCAB, rows)]
    result = [compare(p, p + 1e-3 * rng.normal(size=p.shape), [0] * rows) for _ in range(count)]
    top1 = result[0].top1.copy()
    top1[:flips] = False
    return [replace(result[0], top1=top1), *result[1:]]


COUNTED = GATES[Precision.FP32][1]


@pytest.mark.parametrize(
    ("rows", "flips", "verdict", "words"),
    [
        (150, 0, Verdict.PASS, "clear_top1: errors in 0 of 1,200 (95 % upper bound 0.3"),
        (150, 1, Verdict.DEGRADED, "clear_top1: errors in 1 of 1,200 (95 % upper bound 0."),
        (50, 0, Verdict.INCONCLUSIVE, "clear_top1: errors in 0 of 400 (95 % upper bound "),
    ],
)
def test_no_flip_is_a_count_of_a_thousand_clear_positions_with_its_bound(
    rows: int, flips: int, verdict: Verdict, words: str
) -> None:
    judgement = judge(summarise(clear_documents(8, rows, flips)), None, [COUNTED], ())
    assert judgement.verdict is verdict
    (line,) = (*judgement.reasons, *judgement.notes)
    assert line.startswith(words)
    if verdict is Verdict.INCONCLUSIVE:
        assert line.endswith(
            ": too few, needed no error of clear_top1 in at least 1,000 positions: about 2.5 times"
            " as much text would decide, 600 positions more (--budget fast)"
        )


def test_a_count_in_next_to_no_text_is_not_called_close() -> None:
    (reason,) = judge(summarise(clear_documents(2, 4)), None, [COUNTED], ()).reasons
    assert reason.endswith(
        "at least 1,000 positions: too little text; give one with as many, or a greater --budget"
    )


def test_what_did_not_decide_stays_a_note_beside_what_did() -> None:
    found = summarise(clear_documents(8, 150))
    strict = Gate("mean_kl", 0.0, "test")
    judgement = judge(found, None, [COUNTED, strict], ())
    assert judgement.verdict is Verdict.DEGRADED
    (note,) = judgement.notes
    assert note.startswith("clear_top1: errors in 0 of 1,200")


def test_a_plan_may_ask_for_an_interval_in_place_of_the_count() -> None:
    _, gate = gates_for(Precision.FP32, {"fp32": {"clear_top1": 0.99}})
    assert (gate.text, gate.counted) == ("clear_top1 ≥ 0.99", 0)
    one_flip = summarise(clear_documents(8, 150, 1))
    assert judge(one_flip, None, [gate], ()).verdict is Verdict.PASS


def test_short_documents_without_an_error_do_not_meet_a_share_and_hear_what_is_missing() -> None:
    found = summarise(clear_documents(3, 40))
    gate = Gate("clear_top1", 0.99, "test", at_least=True)
    judgement = judge(found, None, [gate], ())
    assert judgement.verdict is Verdict.INCONCLUSIVE
    times = found["clear_top1"].text_needed(0.99)
    assert 5 < times < 50
    assert f"about {times:.1f} times as much text would decide" in judgement.reasons[0]
    assert "positions more (--budget " in judgement.reasons[0]


def test_the_99th_percentile_of_some_hundred_positions_has_no_interval_and_says_so() -> None:
    gate = Gate("p99_kl", 0.5, "test")
    (reason,) = judge(summarise(clear_documents(8, 50)), None, [gate], ()).reasons
    assert reason == (
        "undecided, needed p99_kl ≤ 0.5: 400 positions have too few values beyond it; give 1,000"
    )
    assert judge(summarise(clear_documents(8, 150)), None, [gate], ()).verdict is Verdict.PASS
