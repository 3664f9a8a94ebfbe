"""Exact intervals: a share without an error has a width, and they hold the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.interval_coverage import CASES, Case, coverage, table
from runtimes.parity.divergence import PositionMetrics
from runtimes.parity.intervals import Estimate, Sample, clopper_pearson
from runtimes.parity.shares import exact_interval
from runtimes.parity.statistics import share_of_totals

pytestmark = pytest.mark.numbers

TOP1 = exact_interval(lambda m: m.top1, lambda m: m.clear)
ACCEPTANCE = exact_interval(lambda m: m.acceptance, lambda m: m.clear)


def document(shares: np.ndarray, kl: np.ndarray | None = None) -> PositionMetrics:
    zeros = np.zeros(len(shares))
    rest = dict.fromkeys(
        ("nll_reference", "nll_export", "max_difference", "squared_error", "squared_signal"), zeros
    )
    yes = np.ones(len(shares), bool)
    kl = np.full(len(shares), 1e-6) if kl is None else kl
    return PositionMetrics(
        kl, shares == 1, yes, shares, **rest, best_reference=zeros, best_export=zeros
    )


def estimate(*documents: PositionMetrics) -> Estimate:
    top1 = np.concatenate([item.top1[item.clear] for item in documents])
    return TOP1.estimate(Sample(float(top1.mean()), np.empty(0), documents))


def binomial(hits: int, count: int, share: float) -> float:
    """The probability of at most so many hits."""
    terms = (math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(hits + 1))
    return math.fsum(terms)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None)
def test_the_ends_are_where_what_was_seen_is_as_unlikely_as_it_may_be(
    pair: tuple[int, int],
) -> None:
    hits, count = pair
    low, high = clopper_pearson(hits / count, count)
    tail = 0.05 if hits in (0, count) else 0.025
    assert (low == 0) == (hits == 0)
    assert (high == 1) == (hits == count)
    if hits:
        assert 1 - binomial(hits - 1, count, low) == pytest.approx(tail, rel=1e-6)
    if hits < count:
        assert binomial(hits, count, high) == pytest.approx(tail, rel=1e-6)


def test_no_error_in_a_thousand_leaves_three_in_a_thousand() -> None:
    low, high = clopper_pearson(1.0, 1000)
    assert (round(low, 4), high) == (0.9970, 1.0)


def test_documents_that_gather_their_errors_tell_less() -> None:
    spread = [document(np.array([0.0, *[1.0] * 19])) for _ in range(20)]
    wrong, right = document(np.zeros(20)), document(np.ones(20))
    gathered = [wrong, *[right] * 19]
    even, uneven = estimate(*spread), estimate(*gathered)
    assert even.value == uneven.value == 0.95
    assert uneven.high - uneven.low > 3 * (even.high - even.low)
    assert uneven.effective is not None
    assert even.effective is not None
    assert uneven.effective < even.effective / 10


def test_without_an_error_the_documents_kl_says_how_much_they_tell() -> None:
    rng = np.random.default_rng(0)
    alike = [document(np.ones(50), rng.exponential(size=50)) for _ in range(30)]
    other = [
        document(np.ones(50), badness * rng.exponential(size=50))
        for badness in rng.gamma(1.0, 1.0, 30)
    ]
    assert estimate(*other).low < estimate(*alike).low < 1.0
    assert estimate(*alike).high == 1.0


def test_an_error_more_never_makes_a_share_look_better() -> None:
    rng = np.random.default_rng(1)
    text = [
        document(np.ones(50), badness * rng.exponential(size=50))
        for badness in rng.gamma(1.0, 1.0, 30)
    ]
    lows = []
    for errors in range(9):
        wrong = [
            replace(item, top1=np.arange(50) > 0) if index < errors else item
            for index, item in enumerate(text)
        ]
        lows.append(estimate(*wrong).low)
    assert lows == sorted(lows, reverse=True)


def test_one_document_and_no_position_have_no_interval() -> None:
    one = estimate(document(np.ones(50)))
    assert (one.value, one.positions) == (1.0, 50)
    assert np.isnan(one.low)
    unclear = replace(document(np.ones(50)), clear=np.zeros(50, bool))
    nothing = TOP1.estimate(Sample(np.nan, np.empty(0), [unclear, unclear]))
    assert nothing.positions == 0
    assert not nothing.known
    alone = TOP1.estimate(Sample(1.0, np.empty(0), [document(np.ones(50)), unclear]))
    assert not alone.known, "only one document has positions that count"


def test_parts_of_positions_tell_more_than_whole_ones_but_not_what_none_shows() -> None:
    rng = np.random.default_rng(2)
    parts = [document(1 - 0.04 * rng.random(100)) for _ in range(20)]
    value = float(np.concatenate([item.acceptance for item in parts]).mean())
    found = ACCEPTANCE.estimate(Sample(value, np.empty(0), parts))
    assert found.value - found.low < 0.5 * (value - clopper_pearson(value, 2000)[0])
    even = [document(np.full(100, 0.98)) for _ in range(20)]
    found = ACCEPTANCE.estimate(Sample(0.98, np.empty(0), even))
    assert found.low < 0.98 * (1 - 2 / 2000), "a position in a thousand may be all wrong"


def test_replies_that_all_agree_do_not_prove_that_all_would() -> None:
    same = share_of_totals([48] * 24, [48] * 24)
    assert (same.value, same.high) == (1.0, 1.0)
    assert 0.85 < same.low < 0.95, "24 replies are 24 samples, however long"
    parted = share_of_totals([8, *[48] * 23], [48] * 24)
    assert parted.low < same.low
    assert parted.high < 1.0
    assert not share_of_totals([48], [48]).known
    assert np.isnan(share_of_totals([0, 0], [0, 0]).value)


@given(st.floats(0.5, 0.999), st.floats(10, 1e4))
@settings(deadline=None)
def test_the_text_that_is_asked_for_decides(share: float, count: float) -> None:
    low, high = clopper_pearson(share, count)
    limit = (share + low) / 2
    times = Estimate(share, low, high, 100, count).text_needed(limit)
    assert 1 < times < 100
    assert clopper_pearson(share, count * times)[0] > limit
    assert clopper_pearson(share, count * times / 1.1)[0] <= limit


@pytest.mark.parametrize(
    "case",
    [Case(8, 0.95, 1.0), Case(58, 0.9995, 1.0), Case(58, 0.97, 1.0, parts=True)],
)
def test_shares_hold_the_truth_as_often_as_they_say(case: Case) -> None:
    assert case in CASES
    assert coverage(case, 200).held >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / 200)


def test_mean_kl_of_few_documents_holds_it_nearly_as_often() -> None:
    for documents in (2, 3, 5):
        assert coverage(Case(documents, None, 0.5), 200).held >= 0.87  # 0.5 to 0.85 by percentiles


def test_the_table_has_a_row_for_each_case() -> None:
    titles, rule, row = table(iter([coverage(Case(3, 0.95, 0.0), 5)]))
    assert titles.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| exact, whole positions | 3 | 95 % | 0 | ")
